"""Divide a video into ticks of equal length, and find the frame on screen at each tick.

Frames are numbered in presentation order. If the frame rate is constant, frame k is on screen at
tick k. If it is not (phones, screen recordings, gif), frame numbers do not measure time, and a clip
of every fourth frame would run at changing speed. So a clip is chosen in ticks, and the time stamps
give the frames.

Legend: N frames in presentation order, T requested ticks (of any shape).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiera_video.data.decoders._clock import MAX_STEP_SEC, steady_times
from hiera_video.data.decoders._packets import PacketTable

# The frame rate counts as constant if no time stamp deviates by more than this from a straight
# line. Counting frames is then off by at most half a frame. Rounding of time stamps (to
# milliseconds in Matroska, for example) and the jitter of a camera's clock stay below this.
_TOLERANCE_FRAMES = 0.5

# A tick is as long as the short steps between frames (this quantile), so that fast parts lose no
# motion. A step shorter than both of these fractions of the median and the mean step would be a
# stray time stamp, so a tick is not shorter. (The median alone is unstable if half of the steps
# are short.)
_QUICK_QUANTILE = 0.1
_MIN_TICK_MEDIANS = 0.25
_MIN_TICK_MEANS = 0.125

# Frames this close (as a fraction of the median step) share a time stamp; see `_real_steps`.
_MIN_STEP_MEDIANS = 1 / 16

# Short steps that differ by at most this fraction differ by rounding: 16 and 17 ms at 60 fps.
_ROUNDING = 1 / 15

# A header's frame rate that differs by more than this fraction from the measured rate is ignored.
_FPS_TOLERANCE = 0.02

# A video that lasts this many times longer than its frames at their usual rate has a wrong stamp.
_MAX_STRETCH = 16


@dataclass(frozen=True, slots=True)
class Timeline:
    """Maps the ticks of a video to its frames; tick 0 is the time of frame 0.

    num_ticks: the duration of the video in ticks. fps: ticks per second; 0.0 if unknown.
    pts_N: int64, the time at which each frame appears; None if frame k is on screen at tick k.
    tick_pts: the length of a tick in the unit of `pts_N`.
    """

    num_ticks: int
    fps: float
    pts_N: np.ndarray | None = None
    tick_pts: float = 1.0

    def ticks_to_frames(self, ticks: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the number of the frame on screen at each tick, int64, in the shape of `ticks`.

        Raises IndexError for a tick outside [0, num_ticks - 1].
        """
        ticks_T = checked_ticks(ticks, num_ticks=self.num_ticks)
        if self.pts_N is None:
            return ticks_T
        # Allow one unit of tolerance, as the time of a frame may be rounded up.
        times_T = self.pts_N[0] + ticks_T * self.tick_pts + min(1.0, self.tick_pts / 2)
        return np.searchsorted(self.pts_N, times_T, side="right") - 1


def checked_ticks(ticks: Sequence[int] | np.ndarray, *, num_ticks: int) -> np.ndarray:
    """Return the ticks as int64; raise IndexError for one outside [0, num_ticks - 1]."""
    ticks_T = np.asarray(ticks, dtype=np.int64)
    if ticks_T.size and not 0 <= ticks_T.min() <= ticks_T.max() < num_ticks:
        low, high = int(ticks_T.min()), int(ticks_T.max())
        raise IndexError(f"ticks {low}..{high} asked for, of 0..{num_ticks - 1}.")
    return ticks_T


def timeline_of(
    table: PacketTable, *, num_frames: int, stamps: Sequence[int | None] | None = None
) -> Timeline:
    """Build the timeline of a video of `num_frames` frames whose packets are `table`.

    stamps: the time stamps of the decoded frames, needed if those of the packets are in doubt. If
    the clock steps back or jumps, the frames continue at the usual step.

    Frame k is on screen at tick k if the frame rate is constant, or if the times are unknown,
    incomplete (a damaged file) or impossible. The rate is then that of the header, or of the usual
    step if the header states none.
    """
    times_N = frame_times(table, num_frames=num_frames, stamps=stamps)
    if times_N is None:
        return Timeline(num_ticks=num_frames, fps=_frames_per_second(table, table.usual_step_pts))
    step = _constant_step(times_N)
    if step:
        return Timeline(num_ticks=num_frames, fps=_frames_per_second(table, step))
    steps, span = _real_steps(times_N), int(times_N[-1] - times_N[0])
    median = float(np.median(steps))
    if span > _MAX_STRETCH * median * num_frames:
        return Timeline(num_ticks=num_frames, fps=_frames_per_second(table, median))
    shortest = min(_MIN_TICK_MEDIANS * median, _MIN_TICK_MEANS * float(steps.mean()))
    tick_pts = max(_quick_step(steps), shortest)
    return Timeline(
        num_ticks=int(span / tick_pts + 1e-6) + 1,
        fps=float(1 / (tick_pts * table.time_base)),
        pts_N=times_N,
        tick_pts=tick_pts,
    )


def frame_times(
    table: PacketTable, *, num_frames: int, stamps: Sequence[int | None] | None = None
) -> np.ndarray | None:
    """Return the time of each frame, int64 `[N]` in the table's unit, never decreasing.

    Returns None if the times are unknown or not credible; see `timeline_of` for the parameters.
    """
    if stamps is None and not table.doubt:
        stamps = table.pts_N.tolist()
    if stamps is None or len(stamps) != num_frames or not table.has_times or num_frames < 2:
        return None
    if not table.time_base:
        return None
    step = table.usual_step_pts
    times_N = steady_times(stamps, step=step, max_step=max_step_pts(table))
    return None if times_N is None or not times_N[-1] else np.rint(times_N).astype(np.int64)


def max_step_pts(table: PacketTable) -> float:
    """Return the longest credible step between two frames; longer ones are wrong time stamps."""
    step = table.step_pts or table.usual_step_pts
    whole = _MAX_STRETCH * step * max(len(table.pts_N), 1)
    if not table.clock_restarts:
        return whole
    return min(whole, max(float(MAX_STEP_SEC / table.time_base), _MAX_STRETCH * step))


def _constant_step(pts_N: np.ndarray) -> float:
    """Return the constant step between all frames but the first and the last, or 0.0 if it varies.

    Those two are often irregular (a late start, a last frame that is held), so they are ignored.
    """
    inner = pts_N[1:-1].astype(np.float64)
    if len(inner) < 3:  # too few to decide: return the usual step
        return float(np.median(_real_steps(pts_N)))
    step = (inner[-1] - inner[0]) / (len(inner) - 1)
    line = inner[0] + step * np.arange(len(inner))
    return float(step) if np.abs(inner - line).max() <= _TOLERANCE_FRAMES * step else 0.0


def _real_steps(times_N: np.ndarray) -> np.ndarray:
    """Return the steps between frames, without those between frames that share a time stamp.

    A prepared video stores such frames one tick apart, because an mp4 cannot show two at one time.
    """
    steps = np.diff(times_N)
    steps = steps[steps > 0]
    return steps[steps > _MIN_STEP_MEDIANS * np.median(steps)]


def _frames_per_second(table: PacketTable, step_pts: float) -> float:
    """Return the header's frame rate, or the rate of the step between frames if the two differ."""
    if not step_pts or not table.time_base:
        return table.stated_fps
    measured = float(1 / (step_pts * table.time_base))
    near = abs(table.stated_fps - measured) <= _FPS_TOLERANCE * measured
    return table.stated_fps if near else measured


def _quick_step(steps: np.ndarray) -> float:
    """Return the length of the short steps: the mean of those that differ only by rounding."""
    # "lower" picks one of the steps; the mean of two might be close to neither.
    quick = float(np.quantile(steps, _QUICK_QUANTILE, method="lower"))
    return float(steps[np.abs(steps - quick) <= max(1.0, _ROUNDING * quick)].mean())
