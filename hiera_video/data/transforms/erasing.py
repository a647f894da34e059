"""Erase a random box of a normalised clip, the same box in all frames.

Legend: C colour channels, T frames, H height, W width (pixels).
Zhong et al. 2020, Random Erasing Data Augmentation (arXiv 1708.04896), with the ranges of timm
and PySlowFast: 0.02 to 1/3 of the area, aspect ratio 0.3 to 1/0.3, log-uniform (uniform in the
paper). As in PySlowFast's version for videos, the box covers the same area of every frame.
"""

from dataclasses import dataclass

import numpy as np
import torch

from hiera_video.data.transforms.boxes import Box, draw_box
from hiera_video.data.transforms.checks import check_fraction
from hiera_video.utils.errors import UserError

MODES = ("pixel", "const")
"""The fill of an erased box: "pixel", unit normal noise drawn for each value, or "const", zeros."""


def check_mode(mode: str) -> None:
    """Raise a UserError unless `mode` is one of `MODES`."""
    if mode not in MODES:
        raise UserError(f"mode must be one of {', '.join(MODES)}, got {mode!r}. Try 'pixel'.")


def draw_erase_box(
    height: int,
    width: int,
    *,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Box | None:
    """Draw the box to erase; None if none of ten tries fits (in very long frames)."""
    return draw_box(height, width, area=area, aspect=aspect, rng=rng)


@dataclass(frozen=True, slots=True)
class Erasure:
    """A box to erase, and the seed of the noise that fills it (None: zeros)."""

    box: Box
    noise_seed: int | None


def draw_erasure(
    height: int,
    width: int,
    *,
    probability: float,
    mode: str,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Erasure | None:
    """Draw whether to erase, the box, and its fill; `mode` is one of `MODES`.

    Raises a UserError for an unknown mode or a probability outside 0..1.
    """
    check_fraction("probability", probability)
    check_mode(mode)
    if rng.random() >= probability:
        return None
    box = draw_erase_box(height, width, rng=rng, area=area, aspect=aspect)
    if box is None:
        return None
    return Erasure(box, int(rng.integers(2**63)) if mode == "pixel" else None)


def erase_(clip_CTHW: torch.Tensor, erasure: Erasure) -> None:
    """Erase a box of a normalised float clip in place; noise is drawn on the clip's device."""
    box = erasure.box
    if erasure.noise_seed is None:
        clip_CTHW[..., box.rows, box.columns] = 0.0
        return
    # torch draws normal numbers in 2/5 of numpy's time. A box may hold 800,000 of them, 5 ms on a
    # CPU, so a GPU draws its own: other numbers than the CPU's, but reproducible.
    generator = torch.Generator(clip_CTHW.device).manual_seed(erasure.noise_seed)
    shape = (*clip_CTHW.shape[:2], box.height, box.width)
    clip_CTHW[..., box.rows, box.columns] = torch.randn(
        shape, generator=generator, dtype=clip_CTHW.dtype, device=clip_CTHW.device
    )


def random_erase(
    clip_CTHW: torch.Tensor,
    *,
    probability: float,
    mode: str = "pixel",
    rng: np.random.Generator,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> torch.Tensor:
    """Erase one random box, the same in all frames, with the given probability.

    Takes a normalised float clip [C, T, H, W] and returns it or an erased copy. `mode` is one of
    `MODES`; 0 is the mean colour of a normalised clip. Raises a UserError for an unknown mode or a
    probability outside 0..1.
    """
    erasure = draw_erasure(
        *clip_CTHW.shape[-2:], probability=probability, mode=mode, rng=rng, area=area, aspect=aspect
    )
    if erasure is None:
        return clip_CTHW
    erased_CTHW = clip_CTHW.clone()
    erase_(erased_CTHW, erasure)
    return erased_CTHW
