"""Compute the order in which Hiera stores its tokens, as an index permutation.

Spatial order is row-major over the token grid (time, height, width). *Unit order* places the tokens
of one mask unit next to each other. Within a unit, it places the tokens that the first q-pooling
merges next to each other, then those that the second merges, and so on. In every stage, a window of
mask unit attention and a pooling group are then contiguous in memory. Splitting into windows is a
view, and pooling is a maximum over consecutive tokens; no stage has to permute the tokens.
"""

from collections.abc import Sequence
from math import prod

import torch


def unit_order(
    grid: Sequence[int], *, unit: Sequence[int], q_stride: Sequence[int], num_pools: int
) -> torch.Tensor:
    """Return, for each position in unit order, the row-major index of its token.

    The result is int64 `[prod(grid)]`, so `tokens_BND[:, unit_order(...)]` is in unit order.

    Args:
        grid: the token grid, such as (8, 56, 56). It must be divisible by `unit`.
        unit: the mask unit in tokens, such as (1, 8, 8). It must be divisible by
            `q_stride ** num_pools`. The model checks both.
        q_stride: the tokens that one pooling merges, such as (1, 2, 2).
        num_pools: the number of poolings.
    """
    dims = len(grid)
    # The axes of each dimension, outermost first: the index of the unit, the position within the
    # unit after all poolings, and one axis per pooling (the last axis is merged first).
    factors = [
        [grid[d] // unit[d], unit[d] // q_stride[d] ** num_pools, *[q_stride[d]] * num_pools]
        for d in range(dims)
    ]
    per_dim = num_pools + 2
    index = torch.arange(prod(grid)).reshape([size for sizes in factors for size in sizes])
    order = [d * per_dim + level for level in range(per_dim) for d in range(dims)]
    return index.permute(order).reshape(-1)


def invert(order: torch.Tensor) -> torch.Tensor:
    """Return the inverse of the permutation `order`, int64 `[N]`."""
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return inverse
