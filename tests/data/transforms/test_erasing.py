import numpy as np
import pytest
import torch

from hiera_video.data.transforms.normalize import draw_erase_box, random_erase


def test_const_erases_one_box_through_all_channels_and_frames():
    clip = torch.ones(3, 4, 30, 40)
    for seed in range(20):
        erased = random_erase(clip, probability=1, mode="const", rng=np.random.default_rng(seed))
        hidden = erased == 0
        assert torch.equal(hidden, hidden[:1, :1].expand_as(hidden))
        rows = hidden[0, 0].any(1).nonzero().flatten()
        columns = hidden[0, 0].any(0).nonzero().flatten()
        height = int(rows[-1] - rows[0]) + 1
        width = int(columns[-1] - columns[0]) + 1
        assert int(hidden[0, 0].sum()) == height * width
        assert 0.015 < height * width / 1200 < 0.36
        assert (clip == 1).all()


def test_pixel_fills_with_unit_normal_noise_of_its_own_for_every_value():
    clip = torch.full((3, 8, 64, 64), 50.0)
    box = draw_erase_box(64, 64, rng=np.random.default_rng(3), area=(0.3, 0.3), aspect=(1.0, 1.0))
    erased = random_erase(
        clip,
        probability=1,
        mode="pixel",
        rng=np.random.default_rng(3),
        area=(0.3, 0.3),
        aspect=(1.0, 1.0),
    )
    changed = (erased != 50.0)[0, 0]
    assert changed.any()
    noise = erased[:, :, changed]
    assert box is not None
    assert noise.shape == (3, 8, box.height * box.width)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.03)
    assert noise.std().item() == pytest.approx(1.0, abs=0.03)
    assert not torch.equal(noise[0, 0], noise[0, 1])
    assert (erased[:, :, ~changed] == 50.0).all()


def test_probability_and_seed():
    clip = torch.ones(3, 1, 8, 8)
    rng = np.random.default_rng(0)
    results = [random_erase(clip, probability=0.25, mode="const", rng=rng) for _ in range(800)]
    rate = np.mean([bool((result == 0).any()) for result in results])
    assert rate == pytest.approx(0.25, abs=0.05)
    first, second = (
        random_erase(clip, probability=1, mode="pixel", rng=np.random.default_rng(7))
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_frames_in_which_no_box_fits_stay():
    clip = torch.ones(3, 1, 2, 300)
    rng = np.random.default_rng(0)
    settings = {"mode": "const", "area": (0.3, 0.3), "aspect": (1.0, 1.0)}
    assert torch.equal(random_erase(clip, probability=1, rng=rng, **settings), clip)


@pytest.mark.parametrize("mode", ["pixel", "const"])
def test_tiny_frames(mode):
    rng = np.random.default_rng(0)
    for _ in range(20):
        erased = random_erase(torch.ones(3, 1, 1, 2), probability=1, mode=mode, rng=rng)
        assert erased.shape == (3, 1, 1, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mode": "rand"}, "mode must be one of pixel, const, got 'rand'"),
        ({"probability": 1.5}, "probability must be in .*, got 1.5"),
    ],
)
def test_bad_settings_are_refused(changed, message):
    settings = {"probability": 0.5, "mode": "pixel", **changed}
    with pytest.raises(ValueError, match=message):
        random_erase(torch.ones(3, 1, 8, 8), rng=np.random.default_rng(0), **settings)
