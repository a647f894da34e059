"""Some videos' views as the engine takes them.

Shape suffixes: B views of all videos in a batch, C channels, T frames, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hiera_video.data.dataset import Failure, Sample
from hiera_video.data.transforms.erasing import Erasure
from hiera_video.data.transforms.normalize import Finish


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
