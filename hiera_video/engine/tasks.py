"""Tasks: each turns a batch into a loss for the training loop to minimise."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn

from hiera_video.config import Config
from hiera_video.data.build import build_mixup
from hiera_video.data.loader import Batch
from hiera_video.data.transforms.mixup import Mixup
from hiera_video.models import masking
from hiera_video.models.parts.autoencoder import MaskedAutoencoder
from hiera_video.models.parts.visible import draw_decoded
from hiera_video.solver.losses import classification_loss
from hiera_video.utils.seed import rng_for, seed_for


class Task(Protocol):
    """Computes the loss of a batch that is already on the device."""

    def step(self, batch: Batch, *, epoch: int, iteration: int) -> torch.Tensor:
        """Return the batch's mean loss, a scalar to call backward on."""


class Classify:
    """Supervised classification, with mixup or cutmix of the batch if `mixup` is given."""

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


class Reconstruct:
    """Masked autoencoding: predict hidden pixels from the visible mask units, without labels.

    A video's masks are drawn on the CPU, from (seed, epoch, video) alone. So they do not depend on
    the device, on the batch size, on the number of processes, or on interruptions.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        unit_grid: Sequence[int],
        strategy: Callable[..., torch.Tensor],
        mask_ratio: float,
        decoder_keep_ratio: float,
        seed: int,
    ) -> None:
        self.model = model
        self.unit_grid = unit_grid
        self.strategy = strategy
        self.mask_ratio = mask_ratio
        self.decoder_keep_ratio = decoder_keep_ratio
        self.seed = seed

    def step(self, batch: Batch, *, epoch: int, iteration: int) -> torch.Tensor:
        """Return the mean squared error of the reconstructed tokens."""
        visible_BU, decoded_BU = self._draw(batch.video_indices_B, epoch)
        return self.model(batch.clips_BCTHW, visible_BU, decoded=decoded_BU).loss

    def _draw(
        self, video_indices_B: torch.Tensor, epoch: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Draw the masks of the views; views of one video are side by side."""
        videos, num_views = torch.unique_consecutive(video_indices_B, return_counts=True)
        visible, decoded = [], []
        for video, views in zip(videos.tolist(), num_views.tolist(), strict=True):
            generator = torch.Generator().manual_seed(seed_for("mask", self.seed, epoch, video))
            visible.append(
                self.strategy(
                    self.unit_grid, num_clips=views, ratio=self.mask_ratio, generator=generator
                )
            )
            decoded.append(
                draw_decoded(visible[-1], keep_ratio=self.decoder_keep_ratio, generator=generator)
            )
        some = [decoded_BU for decoded_BU in decoded if decoded_BU is not None]
        return torch.cat(visible), torch.cat(some) if some else None


def build_task(cfg: Config, model: nn.Module, wrapped: nn.Module | None = None) -> Task:
    """Return the task that TASK names; it calls `wrapped` (None: the model itself)."""
    wrapped = wrapped or model
    if cfg.TASK == "ssl":
        assert isinstance(model, MaskedAutoencoder)
        return Reconstruct(
            wrapped,
            unit_grid=model.unit_grid,
            strategy=masking.find_strategy(cfg.MASK.STRATEGY, key="MASK.STRATEGY"),
            mask_ratio=cfg.MASK.RATIO,
            decoder_keep_ratio=cfg.MASK.DECODER_KEEP_RATIO,
            seed=cfg.RNG_SEED,
        )
    return Classify(
        wrapped,
        label_smoothing=cfg.SOLVER.LABEL_SMOOTHING,
        mixup=build_mixup(cfg),
        seed=cfg.RNG_SEED,
    )
