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

from hiera_video.data.decoders._packets import PacketTable

# Frames that are nowhere further from a straight line of time than this are at a constant rate:
# counting them is then never more than half a frame off. Rounding of time stamps stays below, to
# whole milliseconds in Matroska for instance, and so does the jitter of a camera's clock.
_TOLERANCE_FRAMES = 0.5

# A tick is as long as the quicker frames are shown (this quantile), so that no motion is lost where
# they come fast, but no shorter than a quarter of the usual time: that would be a stray stamp.
_QUICK_QUANTILE = 0.1
_MIN_TICK_MEDIANS = 0.25

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


def timeline_of(table: PacketTable, *, num_frames: int) -> Timeline:
    """Return the timeline of a video of `num_frames` frames whose packets are `table`.

    Frame k is on screen at tick k if its frames come at a constant rate, if their times are unknown
    or known for some of them only (a damaged file), or if they cannot be true.
    """
    pts_N = table.pts_N
    span = int(pts_N[-1] - pts_N[0]) if len(pts_N) else 0
    if not table.stores_pts or table.doubt or len(pts_N) != num_frames or num_frames < 2:
        mean_step = span / max(1, len(pts_N) - 1)
        return Timeline(num_ticks=num_frames, fps=_frames_per_second(table, mean_step))
    step = _constant_step(pts_N)
    if step:
        return Timeline(num_ticks=num_frames, fps=_frames_per_second(table, step))
    steps = np.diff(pts_N)
    median = float(np.median(steps))
    if span > _MAX_STRETCH * median * num_frames:
        return Timeline(num_ticks=num_frames, fps=_frames_per_second(table, median))
    tick_pts = max(_quick_step(steps), _MIN_TICK_MEDIANS * median)
    return Timeline(
        num_ticks=int(span / tick_pts + 1e-6) + 1,
        fps=float(1 / (tick_pts * table.time_base)),
        pts_N=pts_N,
        tick_pts=tick_pts,
    )


def _constant_step(pts_N: np.ndarray) -> float:
    """Return the step between frames if all but the first and the last come at equal ones, or 0.0.

    Those two are often odd and tell nothing: a late start, a last frame that is held.
    """
    inner = pts_N[1:-1].astype(np.float64)
    if len(inner) < 3:  # too few to tell: the usual step
        return float(np.median(np.diff(pts_N)))
    step = (inner[-1] - inner[0]) / (len(inner) - 1)
    line = inner[0] + step * np.arange(len(inner))
    return float(step) if np.abs(inner - line).max() <= _TOLERANCE_FRAMES * step else 0.0


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
    return float(steps[np.abs(steps - quick) <= 1].mean())
