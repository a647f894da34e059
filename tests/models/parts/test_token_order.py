import itertools

import pytest
import torch

from hiera_video.models.parts.token_order import invert, unit_order


@pytest.mark.parametrize(
    ("grid", "unit", "q_stride", "num_pools"),
    [
        ((4, 16, 24), (1, 8, 8), (1, 2, 2), 3),
        ((16, 16), (8, 8), (2, 2), 2),
        ((4, 8, 8), (2, 4, 4), (1, 2, 2), 2),
    ],
)
def test_each_unit_is_contiguous_and_units_are_row_major(grid, unit, q_stride, num_pools):
    order = unit_order(grid, unit=unit, q_stride=q_stride, num_pools=num_pools)
    places = torch.stack(torch.unravel_index(order, grid), -1)
    units = places // torch.tensor(unit)
    tokens = torch.tensor(unit).prod().item()
    expected = list(itertools.product(*(range(g // u) for g, u in zip(grid, unit, strict=True))))
    per_unit = units.reshape(-1, tokens, len(grid))
    assert (per_unit == per_unit[:, :1]).all()
    assert [tuple(row) for row in per_unit[:, 0].tolist()] == expected


def test_runs_of_four_are_the_groups_that_each_pooling_merges():
    grid, unit, q_stride = (2, 16, 16), (1, 8, 8), (1, 2, 2)
    order = unit_order(grid, unit=unit, q_stride=q_stride, num_pools=3)
    values = torch.randn(grid)
    in_order = values.flatten()[order]
    pooled = values
    for num_pools in (1, 2, 3):
        in_order = in_order.reshape(-1, 4).amax(1)
        pooled = torch.nn.functional.max_pool3d(pooled[None, None], (1, 2, 2))[0, 0]
        shrunk = [g // q**num_pools for g, q in zip(grid, q_stride, strict=True)]
        small_unit = [u // q**num_pools for u, q in zip(unit, q_stride, strict=True)]
        left = unit_order(shrunk, unit=small_unit, q_stride=q_stride, num_pools=3 - num_pools)
        assert torch.equal(in_order, pooled.flatten()[left])


def test_invert_undoes_the_order():
    order = unit_order((2, 8, 8), unit=(1, 8, 8), q_stride=(1, 2, 2), num_pools=3)
    tokens = torch.arange(128)
    assert torch.equal(tokens[order][invert(order)], tokens)
