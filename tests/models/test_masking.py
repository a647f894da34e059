import pytest
import torch

from hiera_video.models import masking
from hiera_video.utils.errors import UserError

GRID = (8, 7, 7)  # of 16x224 clips


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("strategy", "grid", "ratio", "count"),
    [
        ("random", GRID, 0.9, 39),  # of 392: floor, as published
        ("random", GRID, 0.75, 98),
        ("random", (7, 7), 0.6, 19),  # images
        ("random", (20,), 0.9, 2),  # 20 * (1 - 0.9) is a little less than 2 in floating point
        ("random", (5,), 0.9, 1),  # not none
        ("random", (2, 2), 0.9, 1),
        ("random", GRID, 0.0, 392),
        ("tube", GRID, 0.9, 5 * 8),  # of 49 tubes: the nearest
        ("tube", GRID, 0.75, 12 * 8),
        ("tube", (7, 7), 0.9, 5),
        ("tube", (8, 2, 2), 0.9, 8),
        ("tube", GRID, 0.999, 8),
        ("frame", GRID, 0.9, 49),
        ("frame", GRID, 0.5, 4 * 49),
        ("frame", (8, 2, 3), 0.7, 2 * 6),
    ],
)
def test_every_clip_has_the_exact_number_of_visible_units(strategy, grid, ratio, count):
    draw = getattr(masking, strategy)
    visible_BU = draw(grid, num_clips=6, ratio=ratio, generator=seeded())
    assert visible_BU.dtype == torch.bool
    assert visible_BU.device.type == "cpu"
    assert visible_BU.shape == (6, torch.Size(grid).numel())
    assert visible_BU.sum(1).tolist() == [count] * 6


@pytest.mark.parametrize("strategy", ["random", "tube", "frame"])
def test_draws_follow_the_seed_and_differ_between_clips(strategy):
    draw = getattr(masking, strategy)
    settings = {"num_clips": 16, "ratio": 0.75}
    one, again = (draw(GRID, **settings, generator=seeded(3)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, draw(GRID, **settings, generator=seeded(4)))
    assert len(one.unique(dim=0)) > (1 if strategy == "frame" else 14)
    # The generator moves on: the next draw from it is another one.
    generator = seeded(3)
    draws = [draw(GRID, **settings, generator=generator) for _ in range(2)]
    assert torch.equal(draws[0], one)
    assert not torch.equal(draws[1], one)
    # Without one it is PyTorch's own, which is left alone otherwise.
    torch.manual_seed(3)
    assert torch.equal(draw(GRID, **settings), one)
    state = torch.get_rng_state()
    draw(GRID, **settings, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("strategy", ["random", "tube", "frame"])
def test_every_unit_is_as_likely_as_any_other(strategy):
    draw = getattr(masking, strategy)
    visible_BU = draw((4, 3, 3), num_clips=4000, ratio=0.7, generator=seeded())
    share = visible_BU.float().mean().item()
    assert visible_BU.float().mean(0).sub(share).abs().max() < 0.04


def test_a_tube_is_constant_through_time():
    visible_BTS = masking.tube(GRID, num_clips=5, ratio=0.9, generator=seeded()).reshape(5, 8, 49)
    assert (visible_BTS == visible_BTS[:, :1]).all()
    assert visible_BTS[:, 0].sum(1).tolist() == [5] * 5


def test_a_frame_is_visible_or_hidden_as_a_whole():
    visible_BTS = masking.frame(GRID, num_clips=5, ratio=0.5, generator=seeded()).reshape(5, 8, 49)
    assert (visible_BTS == visible_BTS[..., :1]).all()
    assert visible_BTS[..., 0].sum(1).tolist() == [4] * 5


def test_random_units_are_no_tubes_and_no_frames():
    visible = masking.random(GRID, num_clips=5, ratio=0.9, generator=seeded()).reshape(5, 8, 49)
    assert (visible != visible[:, :1]).any()
    assert (visible != visible[..., :1]).any()


@pytest.mark.parametrize("strategy", ["random", "tube", "frame"])
@pytest.mark.parametrize("ratio", [1.0, -0.1, 90, float("nan")])
def test_ratios_that_are_none_are_refused(strategy, ratio):
    with pytest.raises(UserError, match=r"mask ratio must be at least 0 and below 1.*Try 0\.9"):
        getattr(masking, strategy)(GRID, num_clips=1, ratio=ratio)


def test_images_have_no_frames():
    with pytest.raises(UserError, match="MASK.STRATEGY must be 'random' or 'tube' for images"):
        masking.frame((7, 7), num_clips=1, ratio=0.5)


@pytest.mark.parametrize("strategy", ["random", "tube", "frame"])
def test_masks_are_on_the_cpu_whatever_the_default_device(strategy):
    with torch.device("meta"):
        visible_BU = getattr(masking, strategy)(GRID, num_clips=2, ratio=0.5)
    assert visible_BU.device.type == "cpu"
