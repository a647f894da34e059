"""Where the time of an epoch goes, and how far it has come."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Times an epoch's loop and, apart, how long it waited for data.

    Seconds are wall-clock time since the last `restart`.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start counting from zero."""
        self._start = time.perf_counter()
        self._wait_sec = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield what `batches` yields, counting the time until each comes as waiting."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self._wait_sec += time.perf_counter() - asked
            yield batch

    @property
    def elapsed_sec(self) -> float:
        """Seconds since the last restart."""
        return time.perf_counter() - self._start

    @property
    def wait_share(self) -> float:
        """The share of that time spent waiting for data, in [0, 1]."""
        return self._wait_sec / max(self.elapsed_sec, 1e-9)


class Mean:
    """A weighted running mean."""

    def __init__(self) -> None:
        self.total = 0.0
        self.weight = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Take a value."""
        self.total += value * weight
        self.weight += weight

    @property
    def value(self) -> float:
        """The mean so far; NaN before the first value."""
        return self.total / self.weight if self.weight else float("nan")
