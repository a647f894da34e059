"""Blocks of pixels, against slices of the padded clip."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from hiera_video.models import masking
from hiera_video.models.parts.patches import visible_blocks
from hiera_video.models.parts.visible import units_of

VIDEO = {"unit": (1, 8, 8), "kernel": (3, 7, 7), "stride": (2, 4, 4), "padding": (1, 3, 3)}
CASES = {
    "video": ((4, 64, 96), VIDEO),
    "image": ((64, 96), {name: sizes[1:] for name, sizes in VIDEO.items()}),
    "no overlap": (
        (4, 8, 16),
        {"unit": (2, 2, 2), "kernel": (1, 2, 4), "stride": (1, 2, 4), "padding": (0, 0, 0)},
    ),
    "wide kernel": (
        (8, 16),
        {"unit": (2, 2), "kernel": (7, 5), "stride": (2, 4), "padding": (3, 0)},
    ),
    "wide padding": (
        (8, 8),
        {"unit": (2, 2), "kernel": (3, 3), "stride": (2, 2), "padding": (5, 4)},
    ),
}


def cut(case, *, hidden_value=0.0):
    """Return clips, visible units, the case's unit grid, and its blocks."""
    size, sizes = CASES[case]
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(2, 3, *size, generator=generator)
    steps = [u * s for u, s in zip(sizes["unit"], sizes["stride"], strict=True)]
    grid = tuple(i // s for i, s in zip(size, steps, strict=True))
    visible = masking.random(grid, num_clips=2, ratio=0.5, generator=generator)
    for clip, place in itertools.product(range(2), itertools.product(*map(range, grid))):
        if not visible[clip].reshape(grid)[place]:
            pixels = [slice(p * s, p * s + s) for p, s in zip(place, steps, strict=True)]
            clips[(clip, slice(None), *pixels)] = hidden_value
    blocks = visible_blocks(clips, visible, units_of(visible), unit_grid=grid, **sizes)
    return clips, visible, grid, blocks


@pytest.mark.parametrize("case", CASES)
def test_a_block_is_the_unit_with_its_halo_and_zeros_outside(case):
    clips, visible, grid, blocks = cut(case)
    sizes = CASES[case][1]
    far = 16  # more zeros than any kernel reaches
    padded = F.pad(clips, [far, far] * len(grid))
    expected = []
    for clip in range(2):
        for unit in visible[clip].nonzero().flatten():
            place = torch.unravel_index(unit, grid)
            starts = [
                far + p.item() * u * s - around
                for p, u, s, around in zip(
                    place, sizes["unit"], sizes["stride"], sizes["padding"], strict=True
                )
            ]
            ends = [
                start + (u - 1) * s + k
                for start, u, s, k in zip(
                    starts, sizes["unit"], sizes["stride"], sizes["kernel"], strict=True
                )
            ]
            where = [slice(a, b) for a, b in zip(starts, ends, strict=True)]
            expected.append(padded[(clip, slice(None), *where)])
    assert torch.equal(blocks, torch.stack(expected))


def test_a_block_of_hiera_is_35_pixels_wide_and_3_frames_long():
    _, visible, _, blocks = cut("video")
    assert blocks.shape == (int(visible.sum()), 3, 3, 35, 35)


@pytest.mark.parametrize("case", CASES)
def test_hidden_pixels_are_replaced_not_multiplied(case):
    expected = cut(case)[-1]
    for value in (1e30, float("inf"), float("nan")):
        assert torch.equal(cut(case, hidden_value=value)[-1], expected)
