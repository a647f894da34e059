"""Compute the times of frames from a clock that may stop, step back or jump, as in joined files."""

from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np

# In formats whose clock may restart, a longer step than this counts as a restart.
MAX_STEP_SEC = 10.0

# A header's rate above this is ignored: it is the clock's unit, not the frames' rate.
MAX_FPS = 240

# A step back by at most this many frames comes from swapped time stamps of B-frames.
_MAX_EXCHANGED_STEPS = 4

# If a larger fraction of the time stamps would be replaced, all of them are ignored.
_MAX_MENDED = 0.1


class Clock:
    """Computes the time of each frame since the first: the file's steps, with bad ones replaced.

    A frame gets the time `step` after its predecessor in three cases: it has no time stamp, or its
    stamp steps back, or it jumps ahead by more than `max_step`. Later stamps are counted from
    there. If a stamp is equal to the last, or only a few steps back (two stamps swapped), its frame
    gets the time of its predecessor. All times are in the unit of the stamps and never decrease.
    `num_mended` counts the frames after the first whose own stamp was not used.
    """

    def __init__(self, *, step: float | Fraction, max_step: float | Fraction) -> None:
        self.num_mended = 0
        self._step = step
        self._max_step = max_step
        self._offset: float | Fraction | None = None
        self._last: float | Fraction | None = None

    def next(self, stamp: float | None) -> float | Fraction:
        """Return the time of the next frame from its time stamp, None if it has none."""
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
    """Compute the times of frames in presentation order with `Clock`, float64 `[N]`.

    Returns None if more than a tenth of the stamps would be replaced, as no stamp can be trusted.
    """
    clock = Clock(step=step, max_step=max_step)
    times_N = np.array([clock.next(stamp) for stamp in stamps], dtype=np.float64)
    return times_N if clock.num_mended <= _MAX_MENDED * len(times_N) else None


def header_rate(stream: av.VideoStream) -> Fraction | None:
    """Return the frame rate in the header of a video; None if it is missing or implausible."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < rate <= MAX_FPS:
            return Fraction(rate)
    return None
