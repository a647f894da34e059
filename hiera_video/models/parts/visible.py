"""Convert bool masks over mask units to the indices that the autoencoder gathers by.

All functions work on the CPU, whatever the device of the clips. A mask is small, and counting its
True units on a GPU would force a synchronisation.

Shape suffixes: B clips, U mask units, V visible units, H hidden tokens that are decoded, n tokens
of one unit.
"""

from collections.abc import Sequence
from functools import cache
from math import prod

import torch

from hiera_video.models.parts.token_order import unit_order
from hiera_video.utils.errors import UserError


def draw_decoded(
    visible_BU: torch.Tensor, *, keep_ratio: float, generator: torch.Generator | None = None
) -> torch.Tensor | None:
    """Draw the hidden units to reconstruct; return bool `[B, U]` on the CPU, None for all of them.

    Each clip gets round(hidden units * keep_ratio) units, at least 1, drawn uniformly. Decoding
    only some units makes the decoder cheaper (dual masking: VideoMAE V2, arXiv 2303.16727, section
    3.2, which draws them by a running cell). `keep_ratio` is in (0, 1]; 1 is the published
    behaviour.
    """
    if keep_ratio >= 1:
        return None
    hidden_BU = ~visible_BU.cpu()
    num_decoded = max(round(hidden_BU[0].sum().item() * keep_ratio), 1)
    noise_BU = torch.rand(hidden_BU.shape, generator=generator, device="cpu")
    # Visible units sort last, and at most all hidden units are taken, so none is chosen.
    chosen = noise_BU.masked_fill(~hidden_BU, 2.0).argsort(dim=1)[:, :num_decoded]
    return torch.zeros_like(hidden_BU).scatter_(1, chosen, True)


def check_visible(visible_BU: torch.Tensor, *, shape: tuple[int, int]) -> torch.Tensor:
    """Check a mask of visible units and return it on the CPU.

    Raises:
        UserError: the shape or type is wrong, or the clips do not all have the same number of True
            units, at least 1.
    """
    if visible_BU.dtype != torch.bool or tuple(visible_BU.shape) != shape:
        raise UserError(
            f"visible must be bool of shape {shape} (clips, mask units), True = kept, got "
            f"{visible_BU.dtype} of shape {tuple(visible_BU.shape)}."
        )
    visible_BU = visible_BU.cpu()
    counts = visible_BU.sum(1).unique().tolist()
    if len(counts) != 1 or counts[0] == 0:
        raise UserError(
            "visible must keep the same number of mask units, at least 1, in every clip, got "
            f"{', '.join(map(str, counts))}."
        )
    return visible_BU


def check_decoded(decoded_BU: torch.Tensor | None, visible_BU: torch.Tensor) -> torch.Tensor:
    """Check a mask of units to decode and return it on the CPU; None stands for all hidden units.

    Raises:
        UserError: nothing is hidden, the shape or type is wrong, a visible unit is chosen, or the
            clips do not all have the same number of True units, at least 1.
    """
    hidden_BU = ~visible_BU
    if not hidden_BU.any():
        raise UserError("visible must hide at least one mask unit, got all of them visible.")
    if decoded_BU is None:
        return hidden_BU
    decoded_BU = decoded_BU.cpu()
    if (
        decoded_BU.dtype != torch.bool
        or decoded_BU.shape != visible_BU.shape
        or (decoded_BU & visible_BU).any()
        or decoded_BU.sum(1).unique().numel() != 1
        or not decoded_BU.any()
    ):
        raise UserError(
            f"decoded must be bool of shape {tuple(visible_BU.shape)}, True for the same number of "
            "hidden mask units in every clip, at least 1, and for no visible one."
        )
    return decoded_BU


def units_of(mask_BU: torch.Tensor) -> torch.Tensor:
    """Return the indices of the True units, int64 `[B, V]`, ascending."""
    units_BV: torch.Tensor = mask_BU.nonzero()[:, 1].unflatten(0, (len(mask_BU), -1))
    return units_BV


def tokens_of_units(
    units_BV: torch.Tensor, *, grid: Sequence[int], unit: Sequence[int]
) -> torch.Tensor:
    """Return the row-major indices of the units' tokens, unit by unit: int64 `[B, V * n]`."""
    return _tokens_by_unit(tuple(grid), tuple(unit))[units_BV].flatten(1)


def tokens_in_order(
    mask_BU: torch.Tensor, *, grid: Sequence[int], unit: Sequence[int]
) -> torch.Tensor:
    """Return the row-major indices of the True units' tokens, ascending: int64 `[B, H]`."""
    return tokens_of_units(units_of(mask_BU), grid=grid, unit=unit).sort(1).values


@cache
def _tokens_by_unit(grid: tuple[int, ...], unit: tuple[int, ...]) -> torch.Tensor:
    with torch.device("cpu"):
        order = unit_order(grid, unit=unit, q_stride=[1] * len(grid), num_pools=0)
    order_Un: torch.Tensor = order.unflatten(0, (-1, prod(unit)))
    return order_Un
