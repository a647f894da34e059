"""Times of frames by a clock that may stop, step back or jump, as in joined files."""

from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np

# In formats whose clock may restart, a longer step than this counts as a restart.
MAX_STEP_SEC = 10.0

# A header's rate above this is ignored: it is the clock's unit, not the frames' rate.
MAX_FPS = 240

# A step back by at most this many frames comes from exchanged stamps of B-frames.
_MAX_EXCHANGED_STEPS = 4

# If a larger share of the time stamps would be replaced, all of them are ignored.
_MAX_MENDED = 0.1


class Clock:
    """Compute each frame's time after the first: the source's steps, with impossible ones replaced.

    A frame without a time stamp, or whose stamp steps back or leaps ahead by more than `max_step`,
    comes `step` after the frame before it, and later stamps are counted from there. A frame whose
    stamp is equal, or a few steps back (two stamps exchanged), is shown with the frame before it.
    All times are in the unit of the stamps; they never fall. `num_mended` counts the frames, but
    for the first, that have no time of their own.
    """

    def __init__(self, *, step: float | Fraction, max_step: float | Fraction) -> None:
        self.num_mended = 0
        self._step = step
        self._max_step = max_step
        self._offset: float | Fraction | None = None
        self._last: float | Fraction | None = None

    def next(self, stamp: float | None) -> float | Fraction:
        """Return the time of the next frame, whose time stamp is `stamp`."""
        if self._last is None:
            self._offset = None if stamp is None else -stamp
            self._last = 0
            return self._last
        usual = self._last + self._step
        if stamp is not None and self._offset is None:
            self._offset = usual - stamp
        now = usual if stamp is None or self._offset is None else stamp + self._offset
        is_own = stamp is not None and self._last < now <= self._last + self._max_step
        self.num_mended += not is_own
        if not is_own and stamp is not None:
            if self._last - _MAX_EXCHANGED_STEPS * self._step <= now <= self._last:
                now = self._last
            else:
                now, self._offset = usual, usual - stamp
        self._last = now
        return now


def steady_times(
    stamps: Iterable[int | None], *, step: float, max_step: float
) -> np.ndarray | None:
    """Return the times of frames in the order they are shown, float64 `[N]`, by `Clock`.

    None if more than a tenth of the stamps would be replaced: then none can be trusted.
    """
    clock = Clock(step=step, max_step=max_step)
    times_N = np.array([clock.next(stamp) for stamp in stamps], dtype=np.float64)
    return times_N if clock.num_mended <= _MAX_MENDED * len(times_N) else None


def header_rate(stream: av.VideoStream) -> Fraction | None:
    """Return the frame rate that the header of a video states; None if it states no likely one."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < rate <= MAX_FPS:
            return Fraction(rate)
    return None
