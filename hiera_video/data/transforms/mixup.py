"""Mix the clips and labels of a batch by mixup or cutmix, chosen per batch.

Legend: B clips in the batch, C colour channels, T frames, H height, W width (pixels), K classes.
mixup: Zhang et al. 2018 (arXiv 1710.09412); cutmix: Yun et al. 2019 (arXiv 1905.04899); label
smoothing: Szegedy et al. 2016 (arXiv 1512.00567). As in timm and PySlowFast, the whole batch has
one method and one lambda, and each clip is mixed with the clip at its mirrored place.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from hiera_video.data.transforms.crops import Box, check_fraction, check_positive
from hiera_video.utils.errors import UserError


@dataclass(frozen=True, slots=True)
class Mixing:
    """How one batch is mixed."""

    own_share: float
    """The papers' lambda: the weight (0..1) of a clip itself; the rest is its partner's."""
    box: Box | None = None
    """cutmix: the box that shows the partner. None: mixup, a blend of the whole picture."""


class Mixup:
    """Mix the clips of a batch with one another and return soft labels.

    `mixup_alpha` and `cutmix_alpha` shape the Beta(alpha, alpha) distribution of lambda; an alpha
    of 0 disables that method. A batch is mixed with probability `prob`. If both methods are
    enabled, cutmix is chosen with probability `switch_prob`. `label_smoothing` (0..1) is the
    fraction of each label that is spread evenly over all `num_classes` classes, also in batches
    that are not mixed. Raises a UserError for numbers outside these ranges, and if both alphas
    are 0.
    """

    def __init__(
        self,
        *,
        mixup_alpha: float,
        cutmix_alpha: float,
        prob: float,
        switch_prob: float,
        label_smoothing: float,
        num_classes: int,
    ) -> None:
        check_fraction("prob", prob)
        check_fraction("switch_prob", switch_prob)
        check_fraction("label_smoothing", label_smoothing)
        check_positive("num_classes", num_classes)
        if min(mixup_alpha, cutmix_alpha) < 0.0 or max(mixup_alpha, cutmix_alpha) == 0.0:
            raise UserError(
                "mixup_alpha and cutmix_alpha must be at least 0 and not both 0, got "
                f"{mixup_alpha} and {cutmix_alpha}. Try 0.8 and 1.0, or switch mixing off."
            )
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.prob = prob
        self.switch_prob = switch_prob
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes

    def __call__(
        self, clips_BCTHW: torch.Tensor, labels_B: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mixed clips and their soft labels, float32 [B, K], rows summing to 1.

        `labels_B` are class indices on any device. The arguments are not changed. Clip i is mixed
        with clip B - 1 - i, so the middle clip of an odd batch stays unchanged.
        """
        mixing = self.draw(*clips_BCTHW.shape[-2:], rng=rng)
        return (
            mix_clips(clips_BCTHW, mixing),
            mix_labels(
                labels_B,
                mixing,
                num_classes=self.num_classes,
                label_smoothing=self.label_smoothing,
            ),
        )

    def draw(self, height: int, width: int, *, rng: np.random.Generator) -> Mixing:
        """Draw how a batch of `height` x `width` clips is mixed."""
        if rng.random() >= self.prob:
            return Mixing(own_share=1.0)
        cutmix_prob = self.switch_prob if self.mixup_alpha > 0.0 else 1.0
        if self.cutmix_alpha > 0.0 and rng.random() < cutmix_prob:
            return draw_cutmix(height, width, alpha=self.cutmix_alpha, rng=rng)
        return Mixing(own_share=float(rng.beta(self.mixup_alpha, self.mixup_alpha)))


def draw_cutmix(height: int, width: int, *, alpha: float, rng: np.random.Generator) -> Mixing:
    """Draw a cutmix box of the frame's shape that covers 1 - Beta(alpha, alpha) of its area.

    The box's centre is uniform over the frame, and the box is clipped at the frame's edge (Yun et
    al. 2019, section 3.1). `own_share` is computed from the clipped box.
    """
    side = math.sqrt(1.0 - rng.beta(alpha, alpha))
    center_y, center_x = int(rng.integers(height)), int(rng.integers(width))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    top, left = max(0, center_y - half_height), max(0, center_x - half_width)
    bottom, right = min(height, center_y + half_height), min(width, center_x + half_width)
    box = Box(top, left, bottom - top, right - left)
    return Mixing(own_share=1.0 - box.height * box.width / (height * width), box=box)


def mix_clips(clips_BCTHW: torch.Tensor, mixing: Mixing) -> torch.Tensor:
    """Mix clip i with clip B - 1 - i, the same way in all frames; the input is not changed."""
    if mixing.own_share == 1.0:
        return clips_BCTHW
    if mixing.box is None:
        return torch.lerp(clips_BCTHW.flip(0), clips_BCTHW, mixing.own_share)
    rows, columns = mixing.box.rows, mixing.box.columns
    mixed_BCTHW = clips_BCTHW.clone()
    mixed_BCTHW[..., rows, columns] = clips_BCTHW[..., rows, columns].flip(0)
    return mixed_BCTHW


def mix_labels(
    labels_B: torch.Tensor, mixing: Mixing, *, num_classes: int, label_smoothing: float
) -> torch.Tensor:
    """Return soft labels, float32 [B, K]: smoothed one-hot rows, mixed like the clips."""
    shape = (len(labels_B), num_classes)
    spread = label_smoothing / num_classes
    soft_BK = torch.full(shape, spread, dtype=torch.float32, device=labels_B.device)
    soft_BK.scatter_(1, labels_B.long()[:, None], 1.0 - label_smoothing + spread)
    return torch.lerp(soft_BK.flip(0), soft_BK, mixing.own_share)
