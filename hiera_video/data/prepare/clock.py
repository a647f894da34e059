"""When the frames of a prepared video are shown: at its source's times, as x264 takes them."""

from collections.abc import Callable, Sequence
from fractions import Fraction

from hiera_video.data.decoders._clock import Clock
from hiera_video.data.decoders._packets import PacketTable
from hiera_video.data.decoders._timeline import frame_times, max_step_pts

# x264 refuses finer ones; a microsecond is finer than any frame rate needs.
_MAX_TICKS_PER_SEC = 1_000_000
_DEFAULT_FPS = 30


class OutputClock:
    """Times of frames in ticks: rising, from zero, the source's own steps wherever it has them.

    table: the source's packets. decode: decodes the source and returns its frames' time stamps;
    called only if those of the packets are in doubt. If they are not to be believed, the frames
    come at the usual step.
    """

    def __init__(self, table: PacketTable, decode: Callable[[], Sequence[int | None]]) -> None:
        own = table.time_base or Fraction(1, _MAX_TICKS_PER_SEC)
        self.time_base = max(own, Fraction(1, _MAX_TICKS_PER_SEC))
        in_doubt = bool(table.doubt) and table.has_times
        stamps = decode() if in_doubt else table.pts_N.tolist()
        self._trusted = frame_times(table, num_frames=len(stamps), stamps=stamps) is not None
        self._ticks_per_pts = own / self.time_base
        # x264 plans its bits by this rate; no frame is shown by it.
        self.fps = Fraction(table.stated_fps).limit_denominator(1001) or Fraction(_DEFAULT_FPS)
        step = Fraction(table.usual_step_pts) or 1 / (_DEFAULT_FPS * own)
        self._clock = Clock(step=step, max_step=max_step_pts(table))
        self._ticks: list[int] = []

    def next(self, pts: int | None) -> int:
        """Return the ticks of the next frame, whose own time stamp is `pts`."""
        ticks = round(self._clock.next(pts if self._trusted else None) * self._ticks_per_pts)
        # Of two frames at one time the second is shown a tick later: an mp4 may not hold both.
        self._ticks.append(max(ticks, self._ticks[-1] + 1) if self._ticks else 0)
        return self._ticks[-1]

    def times_N(self) -> list[Fraction]:
        """Return the times of the frames so far, in seconds."""
        return [ticks * self.time_base for ticks in self._ticks]
