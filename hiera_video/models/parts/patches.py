"""Pixels into patches: the blocks that the patch embedding sees, and the patches to predict.

Shape suffixes: B clips, C colours, V visible mask units, U mask units, N tokens, P values of a
patch; X is the clip's own dimensions, `THW` or `HW`, in `pixel_patches` with the colours.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F


def visible_blocks(
    clips_BCX: torch.Tensor,
    visible_BU: torch.Tensor,
    units_BV: torch.Tensor,
    *,
    unit_grid: Sequence[int],
    unit: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> torch.Tensor:
    """Return what a convolution needs for the tokens of each visible unit: `[B * V, C, *block]`.

    `unit` is a mask unit in tokens; kernel, stride and padding are the convolution's, in pixels. A
    block is the unit's own pixels and the halo that the overlapping kernel reaches into; a
    convolution of it without padding gives exactly the unit's tokens. Pixels of hidden units and
    outside the clip are 0, as published. They are replaced, not multiplied, so that not even a NaN
    gets through.
    """
    steps = [u * s for u, s in zip(unit, stride, strict=True)]
    blocks = [(u - 1) * s + k for u, s, k in zip(unit, stride, kernel, strict=True)]
    behind = [max(b - p - s, 0) for b, p, s in zip(blocks, padding, steps, strict=True)]
    seen = visible_BU.unflatten(1, tuple(unit_grid)).unsqueeze(1)
    for dim, step in enumerate(steps, start=2):
        seen = seen.repeat_interleave(step, dim)
    # F.pad counts from the last dimension.
    pads = [side for pair in zip(padding[::-1], behind[::-1], strict=True) for side in pair]
    windows = F.pad(torch.where(seen, clips_BCX, 0), pads)
    for dim, (block, step) in enumerate(zip(blocks, steps, strict=True), start=2):
        windows = windows.unfold(dim, block, step)
    batch = torch.arange(len(clips_BCX), device=clips_BCX.device)[:, None]
    index: Any = (batch, slice(None), *_places(units_BV, unit_grid))
    return windows[index].flatten(0, 1)


def _places(units_BV: torch.Tensor, unit_grid: Sequence[int]) -> list[torch.Tensor]:
    """Do what `torch.unravel_index` does, which would wait for a GPU to copy the grid's sizes."""
    places: list[torch.Tensor] = []
    for size in reversed(unit_grid):
        places.insert(0, units_BV % size)
        units_BV = units_BV // size
    return places


EPSILON = 1e-6  # the published value, added to the variance


def pixel_patches(clips_BX: torch.Tensor, *, side: int, frame_stride: int = 1) -> torch.Tensor:
    """Cut clips into the patches that tokens stand for: `patches_BNP`, row-major.

    A video's patch is `side` x `side` pixels of the first of each `frame_stride` frames, channel
    last; an image's is channel first: both as published.
    """
    if clips_BX.ndim == 4:
        patches = clips_BX.unflatten(2, (-1, side)).unflatten(4, (-1, side))
        return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    frames = clips_BX[:, :, ::frame_stride]
    patches = frames.unflatten(3, (-1, side)).unflatten(5, (-1, side))
    return patches.permute(0, 2, 3, 5, 4, 6, 1).flatten(4).flatten(1, 3)


def patches_to_frames(
    patches_BNP: torch.Tensor, *, grid: tuple[int, ...], side: int
) -> torch.Tensor:
    """Put patches back: `[B, C, T, H, W]` for a video's grid (T, h, w), else `[B, C, H, W]`."""
    if len(grid) == 2:
        patches = patches_BNP.unflatten(2, (-1, side, side)).unflatten(1, grid)
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    patches = patches_BNP.unflatten(2, (side, side, -1)).unflatten(1, grid)
    return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def statistics(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each patch `[..., P]`, `[..., 1]` each.

    The variance is the unbiased one plus 1e-6, as published.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def normalised(patches: torch.Tensor) -> torch.Tensor:
    """Return each patch `[..., P]` with mean 0 and standard deviation 1."""
    mean, deviation = statistics(patches)
    return (patches - mean) / deviation
