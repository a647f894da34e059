"""Read batches in worker processes, in order, even if processes hang or die.

Shape suffixes: B views of all videos in a batch, C channels, T frames, H height, W width.

A batch is a task of the pool, and each video in it is a step under a deadline. If a video makes its
process hang or crash, it is remembered and from then on fails without being opened. Its batch is
read again, so every other video is still read exactly once.
"""

import itertools
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hiera_video.data.dataset import Failure, Sample, VideoDataset
from hiera_video.data.order import EpochBatchSampler
from hiera_video.data.transforms.normalize import Erasure, Finish
from hiera_video.data.workers.pool import Done, Lost, WorkerPool
from hiera_video.data.workers.process import Job
from hiera_video.utils.errors import UserError


@dataclass(slots=True)
class Batch:
    """The views of some videos, those of one video side by side.

    `clips_BCTHW` float32, `labels_B` and `video_indices_B` int64, one entry a view; B may be 0
    where no video of an evaluation batch decoded. `failures` are the videos that did not, and
    `num_videos` is how many did.

    With `finish`, the clips are still pixels, uint8 `[B, T, H, W, C]`, until `to` has brought them
    to the device and finished them there.
    """

    clips_BCTHW: torch.Tensor
    labels_B: torch.Tensor
    video_indices_B: torch.Tensor
    failures: tuple[Failure, ...]
    num_videos: int = 0
    finish: Finish | None = None
    erasures_B: tuple[Erasure | None, ...] = ()

    def __len__(self) -> int:
        return len(self.labels_B)

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays, which pickle can leave where they lie in shared memory.
        arrays = (self.clips_BCTHW, self.labels_B, self.video_indices_B)
        rest = (self.failures, self.num_videos, self.finish, self.erasures_B)
        return _rebuild, ([tensor.numpy() for tensor in arrays], rest)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its clips, as float32, and its labels on the device."""
        clips = self.clips_BCTHW.to(device, non_blocking=True)
        if self.finish is not None and len(self):
            clips = self.finish(clips, self.erasures_B)
        labels_B = self.labels_B.to(device, non_blocking=True)
        return replace(self, clips_BCTHW=clips, labels_B=labels_B, finish=None, erasures_B=())

    def split(self, num_views: int) -> "list[Batch]":
        """Return its views in batches of at most `num_views`; the first one has the failures."""
        starts = range(0, len(self), num_views)
        return [
            replace(
                self,
                clips_BCTHW=self.clips_BCTHW[start : start + num_views],
                labels_B=self.labels_B[start : start + num_views],
                video_indices_B=self.video_indices_B[start : start + num_views],
                failures=() if start else self.failures,
                erasures_B=self.erasures_B[start : start + num_views],
            )
            for start in starts
        ]

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, for a GPU."""
        return replace(
            self, clips_BCTHW=self.clips_BCTHW.pin_memory(), labels_B=self.labels_B.pin_memory()
        )


def _rebuild(arrays: Sequence[np.ndarray], rest: tuple[Any, ...]) -> Batch:
    clips_BCTHW, labels_B, video_indices_B = (torch.from_numpy(array) for array in arrays)
    return Batch(clips_BCTHW, labels_B, video_indices_B, *rest)


def collate(
    samples: Sequence[Sample],
    finish: Finish | None = None,
    views_B: torch.Tensor | None = None,
) -> Batch:
    """Put the views of the samples that have any one after the other.

    `views_B` are all of them where they lie so already. With `finish`, they are pixels.
    """
    good = [(sample.views, sample) for sample in samples if sample.views is not None]
    views_per_sample = torch.tensor([len(views) for views, _ in good], dtype=torch.int64)

    def per_view(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64).repeat_interleave(views_per_sample)

    if views_B is None:
        views_B = torch.cat([views for views, _ in good]) if good else torch.empty(0)
    return Batch(
        views_B,
        per_view([sample.label for _, sample in good]),
        per_view([sample.video_index for _, sample in good]),
        tuple(failure for sample in samples for failure in sample.failures),
        len(good),
        finish,
        tuple(erasure for _, sample in good for erasure in sample.erasures),
    )


# For each worker: one batch that it reads, one that waits for it.
_BATCHES_PER_WORKER = 2
# Signals that come from outside: the video that was being read is not to blame.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_MAX_KILLED_IN_A_ROW = 4


class BatchReader:
    """Reads the samples of one batch into one piece of memory; the function of the workers."""

    def __init__(self, dataset: VideoDataset) -> None:
        self._dataset = dataset

    def __call__(self, task: tuple[list[tuple[int, int]], dict[int, str]], job: Job) -> Batch:
        """Return the batch of the keys; the task is they and the videos that are refused."""
        keys, refused = task
        memory = _BatchMemory(job, num_samples=len(keys))
        samples = []
        for key in keys:
            samples.append(
                self._dataset.read(key, refused=refused, begin=job.begin, allocate=memory.allocate)
            )
            memory.keep(samples[-1].views)
        finish = None if self._dataset.finish else self._dataset.make_views.finish
        return collate(samples, finish, memory.views())


class _BatchMemory:
    """Memory for the views of all samples, which are all of one shape, one after the other."""

    def __init__(self, job: Job, *, num_samples: int) -> None:
        self._job = job
        self._num_samples = num_samples
        self._all: torch.Tensor | None = None
        self._used = 0

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return the place of the next sample's views; it is the next one's until `keep`."""
        if self._all is None:
            whole = (self._num_samples * shape[0], *shape[1:])
            numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
            self._all = torch.from_numpy(self._job.empty(whole, numpy_dtype))
        views = self._all[self._used : self._used + shape[0]]
        assert views.shape == shape
        return views

    def keep(self, views: torch.Tensor | None) -> None:
        """Say that a sample is there, with these views."""
        self._used += 0 if views is None else len(views)

    def views(self) -> torch.Tensor:
        """Return the views of all samples that have any."""
        return torch.empty(0) if self._all is None else self._all[: self._used]


class BatchLoader:
    """Reads batches of one split, epoch by epoch, in worker processes.

    Args:
        dataset: the videos of the split.
        sampler: their order.
        num_workers: processes that decode; 0 decodes in this one, where nothing protects it from a
            decoder that hangs or crashes.
        pin_memory: put batches in page-locked memory, for a GPU.
        keep_workers: keep the processes from one epoch to the next.
        deadline_sec: the longest that one video may take; 0: for ever.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        sampler: EpochBatchSampler,
        *,
        num_workers: int,
        pin_memory: bool,
        keep_workers: bool,
        deadline_sec: float = 0.0,
    ) -> None:
        self._sampler = sampler
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self._keep_workers = keep_workers
        self._deadline_sec = deadline_sec
        self._read = BatchReader(dataset)
        self._refused: dict[int, str] = {}
        self._pool: WorkerPool | None = None
        self._task_ids = itertools.count()
        self._killed_in_a_row = 0

    def __len__(self) -> int:
        return len(self._sampler)

    def batches(self, epoch: int = 0, *, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `first` on; the same whenever it is asked for.

        Raises:
            UserError: worker processes are killed again and again.
        """
        self._sampler.epoch, self._sampler.first = epoch, first
        keys_of_batches = iter(list(self._sampler))
        batches = (
            self._in_workers(keys_of_batches)
            if self._num_workers
            else (self._read((keys, self._refused), Job()) for keys in keys_of_batches)
        )
        for batch in batches:
            yield batch.pin_memory() if self._pin_memory else batch

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _in_workers(self, keys_of_batches: Iterator[list[tuple[int, int]]]) -> Iterator[Batch]:
        pool = self._pool = self._pool or WorkerPool(
            self._read, num_workers=self._num_workers, deadline_sec=self._deadline_sec
        )
        tasks: dict[int, tuple[int, list[tuple[int, int]]]] = {}  # by id: number and keys
        ready: dict[int, Batch] = {}
        next_in, next_out = 0, 0

        def submit(number: int, keys: list[tuple[int, int]]) -> None:
            task_id = next(self._task_ids)
            tasks[task_id] = number, keys
            pool.submit(task_id, (keys, self._refused))

        try:
            while True:
                while next_in - next_out < _BATCHES_PER_WORKER * self._num_workers and (
                    keys := next(keys_of_batches, None)
                ):
                    submit(next_in, keys)
                    next_in += 1
                if next_out == next_in:
                    return
                while next_out not in ready:
                    result = pool.next()
                    assert result is not None
                    number, keys = tasks.pop(result.task_id)
                    if isinstance(result, Done):
                        ready[number] = result.value
                        self._killed_in_a_row = 0
                    else:
                        self._blame(result)
                        submit(number, keys)
                yield ready.pop(next_out)
                next_out += 1
        finally:
            if self._keep_workers:
                pool.cancel()
            else:
                self.close()

    def _blame(self, lost: Lost) -> None:
        """Refuse the video that a lost task was at, unless its process was killed from outside."""
        if lost.signal not in _FROM_OUTSIDE and lost.step >= 0:
            self._refused[lost.step] = _reason(lost)
            return
        self._killed_in_a_row += 1
        if self._killed_in_a_row >= _MAX_KILLED_IN_A_ROW:
            raise UserError(
                f"data loader processes were killed {self._killed_in_a_row} times in a row "
                f"({lost.reason}), perhaps for want of memory. Try fewer DATA_LOADER.NUM_WORKERS "
                "or a smaller batch."
            )


def _reason(lost: Lost) -> str:
    if lost.hung:
        return (
            f"the decoder hung: {lost.reason} (DATA_LOADER.TIMEOUT_SEC); its process was replaced."
        )
    return f"the decoder crashed: {lost.reason}; it was replaced."
