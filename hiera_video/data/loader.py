"""Samples to batches: the order of the videos in each epoch, and how views are stacked.

Shape suffixes: B views of all videos in a batch, C channels, T frames, H height, W width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from hiera_video.data.dataset import Failure, Sample, VideoDataset
from hiera_video.utils.errors import UserError
from hiera_video.utils.seed import rng_for


@dataclass(slots=True)
class Batch:
    """The views of some videos, those of one video side by side.

    `clips_BCTHW` float32, `labels_B` and `video_indices_B` int64, one entry a view; B may be 0
    where no video of an evaluation batch decoded. `failures` are the videos that did not.
    """

    clips_BCTHW: torch.Tensor
    labels_B: torch.Tensor
    video_indices_B: torch.Tensor
    failures: tuple[Failure, ...]

    def __len__(self) -> int:
        return len(self.labels_B)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its clips and labels on the device."""
        return replace(
            self,
            clips_BCTHW=self.clips_BCTHW.to(device, non_blocking=True),
            labels_B=self.labels_B.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory; the data loader calls it."""
        self.clips_BCTHW = self.clips_BCTHW.pin_memory()
        self.labels_B = self.labels_B.pin_memory()
        return self


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack the views of the samples that have any."""
    good = [(s.views_VCTHW, s) for s in samples if s.views_VCTHW is not None]
    views_per_sample = torch.tensor([len(views) for views, _ in good], dtype=torch.int64)

    def per_view(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64).repeat_interleave(views_per_sample)

    return Batch(
        torch.cat([views for views, _ in good]) if good else torch.empty(0),
        per_view([sample.label for _, sample in good]),
        per_view([sample.video_index for _, sample in good]),
        tuple(failure for sample in samples for failure in sample.failures),
    )


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of `(epoch, index)` keys; shuffled anew in each epoch from `seed` alone.

    With `shuffle`, a last batch that is not full is left out (unless it is the only one), so that
    every iteration sees as many videos as the learning rate was set for.
    """

    def __init__(self, num_videos: int, *, batch_size: int, shuffle: bool, seed: int) -> None:
        self.num_videos = num_videos
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        if self.shuffle:
            return max(self.num_videos // self.batch_size, 1)
        return -(-self.num_videos // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.num_videos)
        if self.shuffle:
            order = rng_for("order", self.seed, self.epoch).permutation(self.num_videos)
        for batch in range(len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in chosen]


class BatchLoader:
    """Reads batches of one split, epoch by epoch, in worker processes.

    Args:
        dataset: the videos of the split.
        sampler: their order.
        num_workers: processes that decode; 0 decodes in this one.
        pin_memory: put batches in page-locked memory, for a GPU.
        keep_workers: keep the processes from one epoch to the next.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        sampler: EpochBatchSampler,
        *,
        num_workers: int,
        pin_memory: bool,
        keep_workers: bool,
    ) -> None:
        self._sampler = sampler
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=keep_workers and num_workers > 0,
            # A batch of clips is large (64 of 16 x 224 x 224 are 616 MB of shared memory), and one
            # in flight for each worker is enough.
            prefetch_factor=1 if num_workers else None,
            # Its own generator: the model's random numbers must not depend on how data is loaded.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._sampler)

    def batches(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch; the same ones whenever it is asked for.

        Raises:
            UserError: a worker process was killed.
        """
        self._sampler.epoch = epoch
        try:
            yield from self._loader
        except RuntimeError as error:
            # What PyTorch says of a worker that is gone, whichever of its two checks sees it first.
            gone = ("killed by signal", "exited unexpectedly")
            if not any(words in str(error) for words in gone):
                raise
            raise UserError(
                "a data loader process was killed, perhaps for want of memory or of shared memory "
                "(/dev/shm). Try fewer DATA_LOADER.NUM_WORKERS or a smaller batch."
            ) from None
