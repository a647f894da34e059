"""What is learnt: a task turns a batch into a loss, the training loop does the rest."""

from typing import Protocol

import torch
from torch import nn

from hiera_video.data.loader import Batch
from hiera_video.data.transforms.mixup import Mixup
from hiera_video.solver.losses import classification_loss
from hiera_video.utils.seed import rng_for


class Task(Protocol):
    """A loss on a batch that is on the device already."""

    def step(self, batch: Batch, *, epoch: int, iteration: int) -> torch.Tensor:
        """Return the batch's mean loss, a scalar to call backward on."""


class Classify:
    """Supervised classification, with mixup or cutmix of the batch where it is given."""

    def __init__(
        self, model: nn.Module, *, label_smoothing: float, mixup: Mixup | None, seed: int
    ) -> None:
        self.model = model
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.seed = seed

    def step(self, batch: Batch, *, epoch: int, iteration: int) -> torch.Tensor:
        """Return the mean cross-entropy of the views."""
        clips_BCTHW, targets = batch.clips_BCTHW, batch.labels_B
        if self.mixup is not None:
            rng = rng_for("mixup", self.seed, epoch, iteration)
            clips_BCTHW, targets = self.mixup(clips_BCTHW, targets, rng)
        logits_BK = self.model(clips_BCTHW)
        return classification_loss(logits_BK, targets, label_smoothing=self.label_smoothing)
