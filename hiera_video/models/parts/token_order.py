"""The order in which Hiera keeps its tokens, as an index permutation.

Spatial order is row-major over the token grid (time, height, width). *Unit order* puts the tokens
of one mask unit side by side and, within the unit, the tokens that the first q-pooling merges side
by side, then those that the second merges, and so on. Both a mask unit attention window and a
pooling group are then contiguous memory: splitting into windows is a view, and pooling is a maximum
over neighbours, in every stage, without moving a token again.
"""

from collections.abc import Sequence
from math import prod

import torch


def unit_order(
    grid: Sequence[int], *, unit: Sequence[int], q_stride: Sequence[int], num_pools: int
) -> torch.Tensor:
    """Return, for each place in unit order, the row-major index of the token that stands there.

    `grid` is the token grid, such as (8, 56, 56); `unit` the mask unit in tokens, (1, 8, 8);
    `q_stride` what one pooling merges, (1, 2, 2); `num_pools` how often it happens. The result is
    int64 `[prod(grid)]`, so `tokens_BND[:, unit_order(...)]` is in unit order. `grid` must be
    divisible by `unit`, and `unit` by `q_stride ** num_pools`; both are checked by the model.
    """
    dims = len(grid)
    # Axes of each dimension, outermost first: unit index, rest inside the unit, one per pooling
    # (the last one is merged first).
    factors = [
        [grid[d] // unit[d], unit[d] // q_stride[d] ** num_pools, *[q_stride[d]] * num_pools]
        for d in range(dims)
    ]
    per_dim = num_pools + 2
    index = torch.arange(prod(grid)).reshape([size for sizes in factors for size in sizes])
    order = [d * per_dim + level for level in range(per_dim) for d in range(dims)]
    return index.permute(order).reshape(-1)


def invert(order: torch.Tensor) -> torch.Tensor:
    """Return the permutation that undoes `order`: int64 `[N]`, as `order`."""
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return inverse
