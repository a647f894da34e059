"""Run the loader's own reading with clocks, in the worker processes of the loader benchmark.

Seconds are CPU time of the whole process, user and system, which other users of the machine do not
affect. Legend: T frames, H height, W width, C channels.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hiera_video.benchmark.loader.per_view import read_per_view, read_per_view_as_pyslowfast
from hiera_video.data.dataset import Allocate, TestViews, VideoDataset, ViewMaker
from hiera_video.data.decoders import DecodeError
from hiera_video.data.loader import Batch, BatchReader
from hiera_video.data.transforms.normalize import Erasure
from hiera_video.data.workers.process import Job

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Task:
    """One video to read, given by its key in the dataset of a split, in one of these ways.

    "views" reads it as the loader does. "plain" only decodes the frames that these views need.
    "per view" and "per view, PySlowFast" open and decode it again for every view. "clock" reads
    nothing.
    """

    way: str
    split: str = ""
    key: Key = (0, 0)


@dataclass(slots=True)
class Reading:
    """The result of a task.

    `work_sec` is the time of the whole task; `decode_sec` is the part for opening, seeking,
    decoding and conversion to RGB. `clock_sec` is the process's clock at the end. `failed` says why
    nothing was read. `batch` is the loader's batch, for the way "views".
    """

    process_id: int
    clock_sec: float = 0.0
    work_sec: float = 0.0
    decode_sec: float = 0.0
    failed: str = ""
    batch: Batch | None = None


class ClockedReader:
    """The function of the worker processes: reads a video in the way that a task names.

    `readers` holds the loader's reader of each split.
    """

    def __init__(self, readers: Mapping[str, BatchReader]) -> None:
        self._readers = dict(readers)

    def __call__(self, task: Task, job: Job) -> Reading:
        """Carry out a task."""
        reading = Reading(os.getpid())
        begin_sec = time.process_time()
        if task.way != "clock":
            reader = self._readers[task.split]
            clock = _Clock()
            if task.way in ("views", "plain"):
                wrap = _ClockedViews if task.way == "views" else _PlainViews
                with _wrapped(dataset_of(reader), lambda make_views: wrap(make_views, clock)):
                    batch = reader(([task.key], {}), _ClockedJob(job, clock))
                reading.failed = batch.failures[0].reason if batch.failures else ""
                reading.batch = batch if task.way == "views" else None
            else:
                reading.failed = _read_per_view(dataset_of(reader), task)
            reading.decode_sec = clock.total_sec
        reading.clock_sec = time.process_time()
        reading.work_sec = reading.clock_sec - begin_sec
        return reading


def dataset_of(reader: BatchReader) -> VideoDataset:
    """Return the dataset that a loader's reader reads."""
    return reader._dataset


def _read_per_view(dataset: VideoDataset, task: Task) -> str:
    views = dataset.make_views
    assert isinstance(views, TestViews)
    path = dataset.records[task.key[1]].path
    try:
        if task.way == "per view":
            read_per_view(path, views, backend=dataset.backend)
        else:
            read_per_view_as_pyslowfast(path, views)
    except DecodeError as error:
        return str(error)
    return ""


@contextmanager
def _wrapped(dataset: VideoDataset, wrap: Callable[[ViewMaker], ViewMaker]) -> Iterator[None]:
    make_views = dataset.make_views
    dataset.make_views = wrap(make_views)
    try:
        yield
    finally:
        dataset.make_views = make_views


class _Clock:
    """Adds up the time between `start` and `stop`."""

    def __init__(self) -> None:
        self.total_sec = 0.0
        self._from_sec = 0.0

    def start(self) -> None:
        self._from_sec = time.process_time()

    def stop(self) -> None:
        self.total_sec += time.process_time() - self._from_sec


class _ClockedJob(Job):
    """A job whose `begin` starts the clock, just before the video is opened."""

    def __init__(self, job: Job, clock: _Clock) -> None:
        self._job = job
        self._clock = clock

    def begin(self, step: int) -> None:
        self._job.begin(step)
        self._clock.start()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        return self._job.empty(shape, dtype)


class _ClockedVideo:
    """An opened video whose `frames_at` is timed; it delegates everything else."""

    def __init__(self, video: Any, clock: _Clock) -> None:
        self._video = video
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._video, name)

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        self._clock.start()
        frames_THWC: np.ndarray = self._video.frames_at(indices)
        self._clock.stop()
        return frames_THWC


class _ClockedViews:
    """Makes views of timed videos, and stops the clock that was started before opening."""

    def __init__(self, make_views: ViewMaker, clock: _Clock) -> None:
        self._make_views = make_views
        self._clock = clock
        self.finish = make_views.finish

    def __call__(
        self, reader: Any, rng: np.random.Generator, allocate: Allocate
    ) -> tuple[torch.Tensor, tuple[Erasure | None, ...]]:
        self._clock.stop()
        return self._make_views(_ClockedVideo(reader, self._clock), rng, allocate)


class _AskedFor(Exception):
    """Carries the indices of the frames that views request."""

    def __init__(self, indices: Sequence[int] | np.ndarray) -> None:
        self.indices = indices


class _AskingVideo(_ClockedVideo):
    """A video that raises the requested indices instead of decoding."""

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        raise _AskedFor(indices)


class _PlainViews(_ClockedViews):
    """Decodes the frames that the views need, and returns one black pixel in their place."""

    def __call__(
        self, reader: Any, rng: np.random.Generator, allocate: Allocate
    ) -> tuple[torch.Tensor, tuple[Erasure | None, ...]]:
        self._clock.stop()
        try:
            self._make_views(_AskingVideo(reader, self._clock), rng, allocate)
        except _AskedFor as asked:
            _ClockedVideo(reader, self._clock).frames_at(asked.indices)
        return torch.zeros((1, 1, 1, 1, 3), dtype=torch.uint8), (None,)
