"""Time stamps of a prepared video: the source's own, on a time base that x264 accepts."""

from collections.abc import Callable, Sequence
from fractions import Fraction

from hiera_video.data.decoders._clock import Clock
from hiera_video.data.decoders._packets import PacketTable
from hiera_video.data.decoders._timeline import frame_times, max_step_pts

# x264 refuses a finer time base. A microsecond is finer than any frame rate needs.
_MAX_TICKS_PER_SEC = 1_000_000
_DEFAULT_FPS = 30


class OutputClock:
    """Give each frame a time in ticks: rising, from zero, with the source's steps where known.

    table: the source's packets. decode: decodes the source and returns the time stamps of its
    frames; it is called only if the packets' time stamps are in doubt. If the time stamps cannot
    be trusted, frames follow one another at the usual step.
    """

    def __init__(self, table: PacketTable, decode: Callable[[], Sequence[int | None]]) -> None:
        own = table.time_base or Fraction(1, _MAX_TICKS_PER_SEC)
        self.time_base = max(own, Fraction(1, _MAX_TICKS_PER_SEC))
        in_doubt = bool(table.doubt) and table.has_times
        stamps = decode() if in_doubt else table.pts_N.tolist()
        self._trusted = frame_times(table, num_frames=len(stamps), stamps=stamps) is not None
        self._ticks_per_pts = own / self.time_base
        # x264's rate control uses this rate. It has no effect on when a frame is shown.
        self.fps = Fraction(table.stated_fps).limit_denominator(1001) or Fraction(_DEFAULT_FPS)
        step = Fraction(table.usual_step_pts) or 1 / (_DEFAULT_FPS * own)
        self._clock = Clock(step=step, max_step=max_step_pts(table))
        self._ticks: list[int] = []

    def next(self, pts: int | None) -> int:
        """Return the ticks of the next frame, whose own time stamp is `pts`."""
        ticks = round(self._clock.next(pts if self._trusted else None) * self._ticks_per_pts)
        # An mp4 cannot hold two frames at one time, so the second is shown one tick later.
        self._ticks.append(max(ticks, self._ticks[-1] + 1) if self._ticks else 0)
        return self._ticks[-1]

    def times_N(self) -> list[Fraction]:
        """Return the times of the frames so far, in seconds."""
        return [ticks * self.time_base for ticks in self._ticks]
