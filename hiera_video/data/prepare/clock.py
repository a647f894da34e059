"""When frames are shown: a source's time stamps, put right where they cannot be, and its rate."""

from fractions import Fraction

import av

# x264 refuses finer ones; a microsecond is finer than any frame rate needs.
_MAX_TICKS_PER_SEC = 1_000_000
_DEFAULT_FPS = 30
_MAX_FPS = 240  # a header's rate above this is the clock's, not the frames'


class Clock:
    """Times of frames in ticks: rising, from zero, the source's own wherever it has them."""

    def __init__(self, stream: av.VideoStream) -> None:
        own = stream.time_base or Fraction(1, _MAX_TICKS_PER_SEC)
        self._own = own
        self.time_base = (
            Fraction(1, _MAX_TICKS_PER_SEC) if own.denominator > _MAX_TICKS_PER_SEC else own
        )
        self._usual_ticks = max(1, round(1 / frame_rate(stream) / self.time_base))
        self._first: int | None = None
        self._ticks: list[int] = []

    def next(self, pts: int | None) -> int:
        """Return the ticks of the next frame, whose own time stamp is `pts`."""
        last = self._ticks[-1] if self._ticks else -self._usual_ticks
        if pts is None:
            ticks = last + self._usual_ticks
        else:
            ticks = round(pts * self._own / self.time_base)
            if self._first is None:
                self._first = ticks - (last + self._usual_ticks)
            ticks -= self._first
        # Two frames at one time, or a step back, are a file's mistakes; players show them in order.
        self._ticks.append(max(ticks, last + 1) if self._ticks else ticks)
        return self._ticks[-1]

    def times_N(self) -> list[Fraction]:
        """Return the times of the frames so far, in seconds."""
        return [ticks * self.time_base for ticks in self._ticks]


def frame_rate(stream: av.VideoStream) -> Fraction:
    """Return the header's frame rate where it can be one; x264 reckons with it, no frame does."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < rate <= _MAX_FPS:
            return Fraction(rate)
    return Fraction(_DEFAULT_FPS)
