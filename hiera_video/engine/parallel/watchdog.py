"""Find the process that keeps the others waiting: all post their place, and rank 0 compares."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import simplejson
from torch.distributed import Store

from hiera_video.utils import dist

T = TypeVar("T")

# The stages of an iteration, in order.
DATA, FORWARD, BACKWARD = "waits for data", "is in the forward pass", "is in the backward pass"
STAGES = (DATA, FORWARD, BACKWARD)
# A step is slow if it takes this many times the median (and WATCHDOG_SEC).
_FACTOR = 5.0
_NUM_STEPS = 20
_POST_SEC = 0.5
# How long to wait for the thread, whose store may no longer answer.
_CLOSE_SEC = 5.0


class Watchdog:
    """Posts this process's place in the training loop; in rank 0, warns about slow steps.

    With one process it does nothing.

    Args:
        limit_sec: shorter steps are never slow; 0 switches the watchdog off.
        warn: gets a line that names the processes that are behind, and their places.
    """

    def __init__(self, limit_sec: float, warn: Callable[[str], None]) -> None:
        self._limit_sec = limit_sec
        self._warn = warn
        self._active = limit_sec > 0 and dist.world_size() > 1
        self._place: tuple[int, int] | None = None  # iterations in all, stage; None: outside
        self._since = time.monotonic()
        self._step_sec: deque[float] = deque(maxlen=_NUM_STEPS)
        self._count = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of an epoch; note when each is requested and when it arrives."""
        if not self._active:
            yield from batches
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="watchdog")
            self._thread.start()
        try:
            start = time.monotonic()
            self.enter(DATA)
            for batch in batches:
                self.enter(FORWARD)
                yield batch
                self._step_sec.append(time.monotonic() - start)
                start = time.monotonic()
                self._count += 1
                self.enter(DATA)
        finally:
            self._place = None

    def enter(self, stage: str) -> None:
        """Record that this process has reached a stage of the iteration."""
        self._place, self._since = (self._count, STAGES.index(stage)), time.monotonic()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, which would abort the process if it used the store as Python exits."""
        self._done.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SEC)
            self._thread = None

    def _run(self) -> None:
        try:
            store = dist.rendezvous_store(timeout_sec=30)
            last, warned_sec = None, 0.0
            while not self._done.wait(_POST_SEC):
                place = self._place
                if place != last:
                    store.set(f"place/{dist.rank()}", simplejson.dumps(place))
                    last, warned_sec = place, 0.0
                waited_sec = time.monotonic() - self._since
                usual_sec = statistics.median(self._step_sec) if self._step_sec else 0.0
                limit_sec = max(self._limit_sec, _FACTOR * usual_sec, 2 * warned_sec)
                if dist.is_main() and place and waited_sec > limit_sec:
                    warned_sec = waited_sec
                    self._warn(self._behind(store, place, waited_sec))
        except (OSError, RuntimeError):
            return  # the store is gone, and with it the run

    def _behind(self, store: Store, own: tuple[int, int], waited_sec: float) -> str:
        places: dict[int, tuple[int, int]] = {0: own}
        for rank in range(1, dist.world_size()):
            key = f"place/{rank}"
            posted = simplejson.loads(store.get(key)) if store.check([key]) else None
            places[rank] = tuple(posted) if posted else (-1, 0)
        first = min(places.values())
        ranks = [str(rank) for rank, place in places.items() if place == first]
        if len(ranks) == dist.world_size():
            who = "all processes are at the same place, and each"
        else:
            who = f"rank {', '.join(ranks)} keeps the others waiting: it"
        what = STAGES[first[1]] if first[0] >= 0 else "is at no iteration"
        return f"a step takes {waited_sec:.0f} s; {who} {what}"
