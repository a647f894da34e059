"""Read batches in worker processes, in order, even if processes hang or die.

Shape suffixes: B views of all videos in a batch, C channels, T frames, H height, W width.

A batch is one task of the worker pool, and each video in it is a step with a deadline. If a video
makes its worker hang or crash, the loader remembers it and never opens it again. Its batch is read
again, so every other video is still read exactly once.
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
from hiera_video.data.transforms.normalize import Erasure, Normalize
from hiera_video.data.workers.pool import Done, Lost, WorkerPool
from hiera_video.data.workers.process import Job
from hiera_video.utils.errors import UserError


@dataclass(slots=True)
class Batch:
    """The views of several videos; the views of one video are adjacent.

    `clips_BCTHW` is float32, `labels_B` and `video_indices_B` are int64, each with one entry per
    view. B is 0 if no video of an evaluation batch decoded. `failures` lists the videos that did
    not decode, and `num_videos` counts those that did.

    With `finish`, the clips are still uint8 pixels `[B, T, H, W, C]`; `to` moves them to the device
    and normalises them there.
    """

    clips_BCTHW: torch.Tensor
    labels_B: torch.Tensor
    video_indices_B: torch.Tensor
    failures: tuple[Failure, ...]
    num_videos: int = 0
    finish: Normalize | None = None
    erasures_B: tuple[Erasure | None, ...] = ()

    def __len__(self) -> int:
        return len(self.labels_B)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle arrays, not tensors: pickle can leave arrays in shared memory without a copy.
        arrays = (self.clips_BCTHW, self.labels_B, self.video_indices_B)
        rest = (self.failures, self.num_videos, self.finish, self.erasures_B)
        return _rebuild, ([tensor.numpy() for tensor in arrays], rest)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its labels and its float32 clips on `device`."""
        clips = self.clips_BCTHW.to(device, non_blocking=True)
        if self.finish is not None and len(self):
            clips = self.finish(clips, self.erasures_B)
        labels_B = self.labels_B.to(device, non_blocking=True)
        return replace(self, clips_BCTHW=clips, labels_B=labels_B, finish=None, erasures_B=())

    def split(self, num_views: int) -> "list[Batch]":
        """Split into batches of at most `num_views` views; the first one keeps the failures."""
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
    finish: Normalize | None = None,
    views_B: torch.Tensor | None = None,
) -> Batch:
    """Concatenate the views of all samples into one Batch.

    Pass `views_B` if the views are already concatenated. With `finish`, the views are pixels.
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


# Each worker reads one batch and has one more waiting.
_BATCHES_PER_WORKER = 2
# Signals sent from outside: the video being read is not the cause.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_MAX_KILLED_IN_A_ROW = 4


class BatchReader:
    """Reads the samples of a batch into one array; this is the function that workers run."""

    def __init__(self, dataset: VideoDataset) -> None:
        self._dataset = dataset

    def __call__(self, task: tuple[list[tuple[int, int]], dict[int, str]], job: Job) -> Batch:
        """Read the videos `keys`, skipping those in `refused`; return them as one Batch.

        `task` is the pair (keys, refused).
        """
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
    """One array for the views of all samples of a batch; all samples have the same shape."""

    def __init__(self, job: Job, *, num_samples: int) -> None:
        self._job = job
        self._num_samples = num_samples
        self._all: torch.Tensor | None = None
        self._used = 0

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return the slice for the next sample's views; `keep` moves on to the slice after it."""
        if self._all is None:
            whole = (self._num_samples * shape[0], *shape[1:])
            numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
            self._all = torch.from_numpy(self._job.empty(whole, numpy_dtype))
        views = self._all[self._used : self._used + shape[0]]
        assert views.shape == shape
        return views

    def keep(self, views: torch.Tensor | None) -> None:
        """Mark the slice of the sample's views as used; None uses nothing."""
        self._used += 0 if views is None else len(views)

    def views(self) -> torch.Tensor:
        """Return the views of all samples kept so far."""
        return torch.empty(0) if self._all is None else self._all[: self._used]


class BatchLoader:
    """Reads batches of one split, epoch by epoch, in worker processes.

    Args:
        dataset: the videos of the split.
        sampler: their order.
        num_workers: number of worker processes that decode. With 0 this process decodes, without
            protection from a decoder that hangs or crashes.
        pin_memory: put batches in page-locked memory, for a GPU.
        keep_workers: keep the worker processes from one epoch to the next.
        deadline_sec: the longest time that one video may take; 0 means no limit.
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
        """Yield the batches of an epoch, starting at number `first`; deterministic per epoch.

        Raises:
            UserError: worker processes are killed repeatedly.
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
        """End the worker processes."""
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
        """Refuse the video that a lost task was reading, unless its worker was killed externally.

        Raises:
            UserError: workers were killed too many times in a row.
        """
        if lost.signal not in _FROM_OUTSIDE and lost.step >= 0:
            self._refused[lost.step] = _reason(lost)
            return
        self._killed_in_a_row += 1
        if self._killed_in_a_row >= _MAX_KILLED_IN_A_ROW:
            raise UserError(
                f"data loader processes were killed {self._killed_in_a_row} times in a row "
                f"({lost.reason}), perhaps because memory ran out. Try fewer "
                "DATA_LOADER.NUM_WORKERS or a smaller batch."
            )


def _reason(lost: Lost) -> str:
    if lost.hung:
        return (
            f"the decoder hung: {lost.reason} (DATA_LOADER.TIMEOUT_SEC); its process was replaced."
        )
    return f"the decoder crashed: {lost.reason}; it was replaced."
