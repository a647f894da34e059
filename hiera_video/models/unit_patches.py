"""Pixels of the visible mask units alone, cut out so that the patch embedding sees nothing else.

Shape suffixes: B clips, C colours, V visible mask units, U mask units; X is the clip's own
dimensions, `THW` or `HW`.
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
