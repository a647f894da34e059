"""Measure the cost of loading videos, against plain decoding and decoding once per view.

All ways of reading run in the loader's own worker processes, in turns, on the same videos. They are
compared by CPU time, because other load on the machine changes wall time.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from hiera_video.benchmark.loader.worker import ClockedReader, Key, Reading, Task
from hiera_video.config import Config, views_per_video
from hiera_video.data.build import build_loader
from hiera_video.data.decoders import check_backend
from hiera_video.data.records import VideoRecord
from hiera_video.data.workers.pool import Done, WorkerPool
from hiera_video.utils.errors import UserError

BACKENDS = {"pyav": "av", "torchcodec": "torchcodec", "decord": "decord"}
"""Decoders to compare, and the package of each."""

PLAIN, VIEWS, PER_VIEW = "plain", "views", "per view"
PYSLOWFAST = "per view, PySlowFast"
SPLITS = ("test", "train")

_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over the videos, in seconds per video: CPU time but for `wall_sec` and `wait_sec`.

    Workers spend `decode_sec` and `transform_sec`. `transport_sec` is the rest of the workers' time
    and all of this process's. `wait_sec` is how long the workers did not run.
    """

    wall_sec: float
    decode_sec: float
    transform_sec: float
    transport_sec: float
    wait_sec: float

    @property
    def cpu_sec(self) -> float:
        """CPU seconds per video, of all processes together."""
        return self.decode_sec + self.transform_sec + self.transport_sec


@dataclass(frozen=True, slots=True)
class Figures:
    """The runs by (backend, split, way), one per round.

    `num_read` is the number of videos that each backend read; one that read none has no runs.
    `first_failures` is each backend's first error. `clips_per_video` and `views_per_video` are by
    split.
    """

    runs: dict[tuple[str, str, str], list[Run]]
    num_read: dict[str, int]
    first_failures: dict[str, str]
    num_videos: int
    num_workers: int
    clips_per_video: dict[str, int]
    views_per_video: dict[str, int]

    @property
    def backends(self) -> list[str]:
        """The backends that read at least one video."""
        return [backend for backend, num in self.num_read.items() if num]


def backends_to_compare(cfg: Config) -> list[str]:
    """Return the decoder that the config names, or for auto all that work on this machine."""
    if cfg.DATA.DECODING_BACKEND != "auto":
        return [cfg.DATA.DECODING_BACKEND]
    found = []
    for backend in BACKENDS:
        try:
            check_backend(backend)
        except UserError:
            continue
        found.append(backend)
    return found


def compare_loading(
    cfg: Config,
    records: Sequence[VideoRecord],
    *,
    backends: Sequence[str],
    num_workers: int,
    rounds: int,
) -> Figures:
    """Read the videos with each backend in all ways, in turns, for `rounds` rounds.

    Raises:
        UserError: no backend reads any of the videos, or a process hangs or dies.
    """
    runs: dict[tuple[str, str, str], list[Run]] = {}
    with ExitStack() as stack:
        benches = {b: stack.enter_context(_bench(cfg, records, b, num_workers)) for b in backends}
        ways = {backend: bench.warm_up() for backend, bench in benches.items()}
        failures = {b: bench.first_failure for b, bench in benches.items() if bench.first_failure}
        if not any(ways.values()):
            raise UserError(f"no video can be read; {next(iter(failures.values()))}")
        for epoch in range(rounds):
            for backend, bench in benches.items():
                for split, way in ways[backend]:
                    run = bench.run(way, split, epoch)
                    runs.setdefault((backend, split, way), []).append(run)
    return Figures(
        runs,
        {backend: len(bench.readable) for backend, bench in benches.items()},
        failures,
        len(records),
        num_workers,
        {"test": cfg.TEST.NUM_TEMPORAL_CLIPS, "train": 1},
        {
            "test": cfg.TEST.NUM_TEMPORAL_CLIPS * cfg.TEST.NUM_SPATIAL_CROPS,
            "train": views_per_video(cfg),
        },
    )


@contextmanager
def _bench(
    cfg: Config, records: Sequence[VideoRecord], backend: str, num_workers: int
) -> "Iterator[_Bench]":
    cfg = replace(cfg, DATA=replace(cfg.DATA, DECODING_BACKEND=backend))
    readers = {split: build_loader(cfg, split, records)._read for split in SPLITS}
    deadline_sec = cfg.DATA_LOADER.TIMEOUT_SEC
    function = ClockedReader(readers)
    with WorkerPool(function, num_workers=num_workers, deadline_sec=deadline_sec) as pool:
        yield _Bench(pool, backend, num_videos=len(records), num_workers=num_workers)


class _Bench:
    """One backend, its worker processes and the videos that it can read."""

    def __init__(
        self, pool: WorkerPool, backend: str, *, num_videos: int, num_workers: int
    ) -> None:
        self._pool = pool
        self._backend = backend
        self._num_workers = num_workers
        self._task_ids = itertools.count()
        self.readable = list(range(num_videos))
        self.first_failure = ""

    def warm_up(self) -> list[tuple[str, str]]:
        """Try each way once to find the readable videos; return the (split, way) that work."""
        ways = [(split, way) for split in SPLITS for way in (PLAIN, VIEWS)]
        for split, way in ways:
            good = []
            for index, reading in self._read(way, split, self._keys(0)):
                self.first_failure = self.first_failure or reading.failed
                if not reading.failed:
                    good.append(index)
            self.readable = sorted(good)
        if not self.readable:
            return []
        per_view = (PER_VIEW, PYSLOWFAST) if self._backend == "pyav" else (PER_VIEW,)
        for way in per_view:
            if not any(reading.failed for _, reading in self._read(way, "test", self._keys(0))):
                ways.append(("test", way))
        return ways

    def run(self, way: str, split: str, epoch: int) -> Run:
        """Read all readable videos in one way."""
        before_sec = self._clocks_sec()
        begin_sec, begin_own_sec = time.perf_counter(), time.process_time()
        readings = [reading for _, reading in self._read(way, split, self._keys(epoch))]
        wall_sec = time.perf_counter() - begin_sec
        own_sec = time.process_time() - begin_own_sec
        worker_sec = self._clocks_sec() - before_sec
        work_sec = sum(reading.work_sec for reading in readings)
        decode_sec = sum(reading.decode_sec for reading in readings)
        num = len(readings)
        return Run(
            wall_sec=wall_sec / num,
            decode_sec=decode_sec / num,
            transform_sec=(work_sec - decode_sec) / num,
            transport_sec=(worker_sec - work_sec + own_sec) / num,
            wait_sec=(self._num_workers * wall_sec - worker_sec) / num,
        )

    def _keys(self, epoch: int) -> list[Key]:
        return [(epoch, index) for index in self.readable]

    def _read(self, way: str, split: str, keys: Sequence[Key]) -> Iterator[tuple[int, Reading]]:
        """Yield (number of the video, its reading) as they arrive."""
        indices = {}
        for key in keys:
            task_id = next(self._task_ids)
            indices[task_id] = key[1]
            self._pool.submit(task_id, Task(way, split, key))
        for _ in keys:
            result = self._pool.next()
            assert result is not None
            if not isinstance(result, Done):
                raise UserError(f"a data loading process of {self._backend} {result.reason}.")
            reading: Reading = result.value
            if reading.batch is not None:
                # Touch every page, so that the cost of mapping shared memory is included.
                reading.batch.clips_BCTHW.numpy().reshape(-1).view("uint8")[::_PAGE_BYTES].sum()
                reading.batch = None
            yield indices[result.task_id], reading

    def _clocks_sec(self) -> float:
        """Return the CPU seconds the workers have used; all are idle, so each gets one task."""
        readings = [reading for _, reading in self._read("clock", "", [(0, 0)] * self._num_workers)]
        assert len({reading.process_id for reading in readings}) == self._num_workers
        return sum(reading.clock_sec for reading in readings)
