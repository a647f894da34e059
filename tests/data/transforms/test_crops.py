import numpy as np
import pytest
import torch
from PIL import Image

from hiera_video.data.transforms.crops import (
    Box,
    crop_and_resize,
    draw_crop_box,
    random_flip,
    random_resized_crop,
    resize_short_side,
    spatial_crops,
)


def smooth_frames(num_frames: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Random smooth pictures, laid out in memory as decoders do: channels innermost."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (num_frames, 6, 7, 3), dtype=np.uint8)
    frames = [Image.fromarray(f).resize((width, height), Image.Resampling.BICUBIC) for f in small]
    return torch.from_numpy(np.stack([np.asarray(f) for f in frames])).permute(0, 3, 1, 2)


@pytest.mark.parametrize("box", [Box(3, 5, 40, 61), Box(0, 0, 70, 90), Box(10, 20, 9, 7)])
def test_crop_and_resize_matches_pillow(box: Box):
    frames = smooth_frames(2, 70, 90)
    ours = crop_and_resize(frames, box, size=32)
    assert ours.shape == (2, 3, 32, 32)
    assert ours.dtype == torch.uint8
    for frame, result in zip(frames, ours, strict=True):
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
        area = (box.left, box.top, box.left + box.width, box.top + box.height)
        expected = picture.crop(area).resize((32, 32), Image.Resampling.BILINEAR)
        difference = result.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected)
        assert np.abs(difference).max() <= 1


def test_crop_of_the_whole_frame_at_its_own_size_changes_nothing():
    frames = smooth_frames(1, 32, 32)
    assert torch.equal(crop_and_resize(frames, Box(0, 0, 32, 32), size=32), frames)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (256, 340, 224, (224, 297)),
        (340, 256, 224, (297, 224)),
        (64, 64, 32, (32, 32)),
        (5, 9, 20, (20, 36)),  # a video smaller than the crop is enlarged
        (1, 1, 16, (16, 16)),
        (33, 37, 33, (33, 37)),
    ],
)
def test_resize_short_side_keeps_aspect(height, width, size, expected):
    frames = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    assert resize_short_side(frames, size).shape[-2:] == expected


def test_crop_box_falls_back_to_the_centre_of_a_frame_too_long_for_its_aspect():
    rng = np.random.default_rng(0)
    assert draw_crop_box(10, 400, scale=(0.9, 1.0), aspect=(0.75, 4 / 3), rng=rng) == Box(
        0, 193, 10, 13
    )
    assert draw_crop_box(400, 10, scale=(0.9, 1.0), aspect=(0.75, 4 / 3), rng=rng) == Box(
        193, 0, 13, 10
    )


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (7, 3), (31, 33)])
def test_random_resized_crop_of_small_and_odd_frames(height, width):
    rng = np.random.default_rng(0)
    frames = torch.full((1, 3, height, width), 77, dtype=torch.uint8)
    for _ in range(5):
        crop = random_resized_crop(
            frames, size=16, scale=(0.08, 1.0), aspect=(0.75, 4 / 3), rng=rng
        )
        assert crop.shape == (1, 3, 16, 16)
        assert (crop == 77).all()


def test_random_resized_crop_is_the_same_in_all_frames_and_follows_its_seed():
    frames = smooth_frames(1, 60, 80).expand(4, -1, -1, -1)

    def crop(seed: int) -> torch.Tensor:
        rng = np.random.default_rng(seed)
        return random_resized_crop(frames, size=24, scale=(0.1, 0.5), aspect=(0.5, 2.0), rng=rng)

    assert (crop(1) == crop(1)[:1]).all()
    assert torch.equal(crop(1), crop(1))
    assert not torch.equal(crop(1), crop(2))


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"aspect": (2.0, 1.0)}, "aspect"),
        ({"size": 0}, "size"),
    ],
)
def test_bad_ranges_are_refused_by_name(changed, key):
    settings = {"size": 8, "scale": (0.1, 1.0), "aspect": (0.5, 2.0), **changed}
    frames = torch.zeros(1, 3, 9, 9, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"^{key} must be .*, got "):
        random_resized_crop(frames, rng=np.random.default_rng(0), **settings)


def test_flip_mirrors_all_frames_half_of_the_time():
    frames = smooth_frames(2, 5, 7)
    rng = np.random.default_rng(0)
    flipped = 0
    for _ in range(1000):
        result = random_flip(frames, rng=rng)
        if not torch.equal(result, frames):
            assert np.array_equal(result.numpy(), frames.numpy()[..., ::-1])
            flipped += 1
    assert 450 < flipped < 550


def test_flip_probability_0_and_1():
    frames = smooth_frames(1, 5, 7)
    rng = np.random.default_rng(0)
    assert all(torch.equal(random_flip(frames, rng=rng, probability=0), frames) for _ in range(9))
    assert not any(
        torch.equal(random_flip(frames, rng=rng, probability=1), frames) for _ in range(9)
    )


def test_three_crops_lie_along_the_longer_side():
    wide = torch.arange(11, dtype=torch.uint8).expand(2, 3, 4, 11)
    starts = [int(crop[0, 0, 0, 0]) for crop in spatial_crops(wide, size=4, num_crops=3)]
    assert starts == [0, 4, 7]
    tall = wide.transpose(2, 3)
    starts = [int(crop[0, 0, 0, 0]) for crop in spatial_crops(tall, size=4, num_crops=3)]
    assert starts == [0, 4, 7]


def test_one_crop_is_the_centre_on_both_sides():
    frames = torch.arange(8 * 10, dtype=torch.uint8).view(1, 1, 8, 10).expand(1, 3, 8, 10)
    (crop,) = spatial_crops(frames, size=4, num_crops=1)
    assert torch.equal(crop, frames[..., 2:6, 3:7])
    assert torch.equal(spatial_crops(frames, size=4, num_crops=3)[1], crop)


def test_spatial_crops_refuse_other_numbers_and_frames_that_are_too_small():
    frames = torch.zeros(1, 3, 8, 10, dtype=torch.uint8)
    with pytest.raises(ValueError, match="num_crops must be 1 or 3, got 2"):
        spatial_crops(frames, size=4, num_crops=2)
    with pytest.raises(ValueError, match="got 9 for 10x8 pixels"):
        spatial_crops(frames, size=9, num_crops=1)
