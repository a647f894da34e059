"""Random erasing of a normalised clip: one box through all frames.

Legend: C colour channels, T frames, H height, W width (pixels).
Zhong et al. 2020, Random Erasing Data Augmentation (arXiv 1708.04896), with the ranges of timm
and PySlowFast: 0.02 to 1/3 of the area, aspect ratio 0.3 to 1/0.3, log-uniform (uniform in the
paper). As in PySlowFast's video form the box is a cube in time: what is hidden stays hidden.
"""

import numpy as np
import torch

from hiera_video.data.transforms.boxes import Box, draw_box
from hiera_video.data.transforms.checks import check_fraction
from hiera_video.utils.errors import UserError

MODES = ("pixel", "const")
"""What an erased box is filled with: unit normal noise, new for every value, or zeros."""


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
    """Draw the box to erase; None if ten tries found none that fits (very long frames)."""
    return draw_box(height, width, area=area, aspect=aspect, rng=rng)


def erase(clip_CTHW: torch.Tensor, box: Box, *, filling: torch.Tensor) -> torch.Tensor:
    """Return a copy of the clip in which `filling` (broadcastable to the box) replaces `box`."""
    erased_CTHW = clip_CTHW.clone()
    erased_CTHW[..., box.rows, box.columns] = filling
    return erased_CTHW


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
    `MODES`; 0 is the mean colour of a normalised clip. Raises a UserError for another mode or a
    probability outside 0..1.
    """
    check_fraction("probability", probability)
    check_mode(mode)
    if rng.random() >= probability:
        return clip_CTHW
    box = draw_erase_box(*clip_CTHW.shape[-2:], rng=rng, area=area, aspect=aspect)
    if box is None:
        return clip_CTHW
    if mode == "const":
        return erase(clip_CTHW, box, filling=clip_CTHW.new_zeros(()))
    # torch's normal numbers cost 2/5 of numpy's, and the box may hold 800,000 of them.
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    shape = (*clip_CTHW.shape[:2], box.height, box.width)
    noise = torch.randn(shape, generator=generator, dtype=clip_CTHW.dtype)
    return erase(clip_CTHW, box, filling=noise)
