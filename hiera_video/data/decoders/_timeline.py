"""Time in a video, in ticks of equal length, and the frame that is on screen at each of them.

Frames are numbered in the order they are shown. Where they come at equal steps, frame k is on
screen at tick k and nothing is to be done. Where they do not (phones, screen recordings, gif), the
k-th frame says nothing of time: a clip of every fourth frame would run at changing speed. So a clip
is chosen in ticks, and the frames follow from their time stamps.

Legend: N frames in presentation order, T ticks asked for (of any shape).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiera_video.data.decoders._clock import MAX_STEP_SEC, steady_times
from hiera_video.data.decoders._packets import PacketTable

# Frames that are nowhere further from a straight line of time than this are at a constant rate:
# counting them is then never more than half a frame off. Rounding of time stamps stays below, to
# whole milliseconds in Matroska for instance, and so does the jitter of a camera's clock.
_TOLERANCE_FRAMES = 0.5

# A tick is as long as the quicker frames are shown (this quantile), so that no motion is lost where
# they come fast, but no shorter than both of these shares of the median and the mean step: that
# would be a stray stamp. (The median alone is unstable where half of the frames are quick.)
_QUICK_QUANTILE = 0.1
_MIN_TICK_MEDIANS = 0.25
_MIN_TICK_MEANS = 0.125

# Frames this close (as a share of the median step) share a time stamp; see `_real_steps`.
_MIN_STEP_MEDIANS = 1 / 16

# Quick steps that differ by no more than this share differ by rounding: 16 and 17 ms at 60 fps.
_ROUNDING = 1 / 15

# A header's frame rate this far (as a fraction) from the one measured is taken for wrong.
_FPS_TOLERANCE = 0.02

# A video that lasts this much longer than its frames at their usual rate has a false time stamp.
_MAX_STRETCH = 16


@dataclass(frozen=True, slots=True)
class Timeline:
    """`num_ticks` ticks, `fps` of them a second (0.0: unknown); tick 0 is when frame 0 is shown.

    pts_N: int64, when each frame is first shown, or None: frame k is on screen at tick k.
    tick_pts: length of a tick, in the unit of `pts_N`.
    """

    num_ticks: int
    fps: float
    pts_N: np.ndarray | None = None
    tick_pts: float = 1.0

    def ticks_to_frames(self, ticks: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the number of the frame on screen at each tick, int64, in the shape of `ticks`.

        Raises IndexError for a tick outside [0, num_ticks - 1].
        """
        ticks_T = np.asarray(ticks, dtype=np.int64)
        if ticks_T.size and not 0 <= ticks_T.min() <= ticks_T.max() < self.num_ticks:
            low, high = int(ticks_T.min()), int(ticks_T.max())
            raise IndexError(f"ticks {low}..{high} asked for, of 0..{self.num_ticks - 1}.")
        if self.pts_N is None:
            return ticks_T
        # A frame whose time was rounded up is not late: one unit of grace.
        times_T = self.pts_N[0] + ticks_T * self.tick_pts + min(1.0, self.tick_pts / 2)
        return np.searchsorted(self.pts_N, times_T, side="right") - 1


def timeline_of(
    table: PacketTable, *, num_frames: int, stamps: Sequence[int | None] | None = None
) -> Timeline:
    """Return the timeline of a video of `num_frames` frames whose packets are `table`.

    stamps: the time stamps of the frames as they are decoded, of use where the packets' are in
    doubt. Where the clock steps back or jumps, the frames go on at the usual step.

    Frame k is on screen at tick k if its frames come at a constant rate, if their times are unknown
    or known for some of them only (a damaged file), or if they cannot be true. The rate is then
    the header's, or that of the usual step where the header states none.
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
    """Return when each frame is shown, int64 `[N]` in the table's unit, never falling.

    None if the times are unknown or not to be believed; see `timeline_of` for the parameters.
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
    """Return the longest step between two frames that is not due to a false time stamp."""
    step = table.step_pts or table.usual_step_pts
    whole = _MAX_STRETCH * step * max(len(table.pts_N), 1)
    if not table.clock_restarts:
        return whole
    return min(whole, max(float(MAX_STEP_SEC / table.time_base), _MAX_STRETCH * step))


def _constant_step(pts_N: np.ndarray) -> float:
    """Return the step between frames if all but the first and the last come at equal ones, or 0.0.

    Those two are often odd and tell nothing: a late start, a last frame that is held.
    """
    inner = pts_N[1:-1].astype(np.float64)
    if len(inner) < 3:  # too few to tell: the usual step
        return float(np.median(_real_steps(pts_N)))
    step = (inner[-1] - inner[0]) / (len(inner) - 1)
    line = inner[0] + step * np.arange(len(inner))
    return float(step) if np.abs(inner - line).max() <= _TOLERANCE_FRAMES * step else 0.0


def _real_steps(times_N: np.ndarray) -> np.ndarray:
    """Return the steps between frames without those of frames that share a time stamp.

    A prepared video shows such frames a tick apart, as an mp4 may not show two at one time.
    """
    steps = np.diff(times_N)
    steps = steps[steps > 0]
    return steps[steps > _MIN_STEP_MEDIANS * np.median(steps)]


def _frames_per_second(table: PacketTable, step_pts: float) -> float:
    """Return the header's rate, or that of the step between frames where the two disagree."""
    if not step_pts or not table.time_base:
        return table.stated_fps
    measured = float(1 / (step_pts * table.time_base))
    near = abs(table.stated_fps - measured) <= _FPS_TOLERANCE * measured
    return table.stated_fps if near else measured


def _quick_step(steps: np.ndarray) -> float:
    """Return how long the quicker frames are shown: the mean of steps that differ by rounding."""
    # One of the steps, and no mean of two, which might be near to neither of them.
    quick = float(np.quantile(steps, _QUICK_QUANTILE, method="lower"))
    return float(steps[np.abs(steps - quick) <= max(1.0, _ROUNDING * quick)].mean())
