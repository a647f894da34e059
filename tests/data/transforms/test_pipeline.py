import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from hiera_video.data.transforms import Policy, TestTransform, TrainTransform, parse_policy

MEAN, STD = [0.45] * 3, [0.225] * 3


def train_transform(**changed) -> TrainTransform:
    settings = {
        "crop_size": 24,
        "scale": (0.08, 1.0),
        "aspect": (0.75, 1.3333),
        "flip": True,
        "policy": parse_policy("rand-m7-n4-mstd0.5-inc1"),
        "erase_probability": 0.25,
        "erase_mode": "const",
        "mean": MEAN,
        "std": STD,
    }
    return TrainTransform(**{**settings, **changed})


def noise_frames(num_frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(4, 40, 50), (1, 33, 31), (2, 5, 7), (3, 1, 1), (2, 90, 11)])
def test_train_clip_has_the_models_shape_for_any_video(shape):
    clip = train_transform()(noise_frames(*shape), np.random.default_rng(0))
    assert clip.shape == (3, shape[0], 24, 24)
    assert clip.dtype == torch.float32
    assert clip.is_contiguous()
    assert clip.min() >= (0 - 0.45) / 0.225 - 1e-5
    assert clip.max() <= (1 - 0.45) / 0.225 + 1e-5


def test_train_treats_all_frames_alike_and_leaves_the_decoded_ones():
    frames = np.repeat(noise_frames(1, 40, 50), 4, axis=0)
    before = frames.copy()
    transform = train_transform(erase_probability=1.0)
    for seed in range(15):
        clip = transform(frames, np.random.default_rng(seed))
        assert torch.equal(clip, clip[:, :1].expand_as(clip))
    assert np.array_equal(frames, before)


def test_train_follows_its_seed_and_gives_different_views_of_one_decode():
    frames = noise_frames(2, 40, 50)
    transform = train_transform()
    rng = np.random.default_rng(4)
    first, second = transform(frames, rng), transform(frames, rng)
    assert not torch.equal(first, second)
    rng = np.random.default_rng(4)
    assert torch.equal(transform(frames, rng), first)
    assert torch.equal(transform(frames, rng), second)


def test_train_without_augmentation_is_the_normalised_frame():
    frames = noise_frames(2, 24, 24)
    transform = train_transform(
        scale=(1.0, 1.0), aspect=(1.0, 1.0), flip=False, policy=None, erase_probability=0.0
    )
    clip = transform(frames, np.random.default_rng(0))
    expected = ((frames / 255 - 0.45) / 0.225).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(clip.numpy(), expected, atol=1e-5)


def test_train_flips_half_of_the_clips_and_none_when_off():
    frames = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    frames[:, :, :4] = 255
    settings = {"crop_size": 8, "scale": (1.0, 1.0), "aspect": (1.0, 1.0)}
    for flip, expected in ((True, 0.5), (False, 0.0)):
        transform = train_transform(**settings, flip=flip, policy=None, erase_probability=0.0)
        rng = np.random.default_rng(0)
        flipped = [bool(transform(frames, rng)[0, 0, 0, 0] < 0) for _ in range(400)]
        assert np.mean(flipped) == pytest.approx(expected, abs=0.08)


def test_train_fills_moved_pictures_with_the_mean_colour():
    frames = np.full((1, 24, 24, 3), 255, dtype=np.uint8)
    transform = train_transform(
        policy=Policy(10.0, 3), flip=False, erase_probability=0.0, mean=[0.2] * 3, std=[1.0] * 3
    )
    clips = [transform(frames, np.random.default_rng(seed)) for seed in range(40)]
    # A white picture that was only moved holds white and the mean, which is normalised to zero.
    filled = [clip for clip in clips if ((clip.abs() < 1e-3) | (clip > 0.79)).all()]
    assert any((clip.abs() < 1e-3).any() for clip in filled)


def test_train_erases_one_box_when_asked():
    frames = np.full((2, 24, 24, 3), 255, dtype=np.uint8)
    for probability in (0.0, 1.0):
        transform = train_transform(policy=None, erase_probability=probability)
        clip = transform(frames, np.random.default_rng(0))
        assert bool((clip == 0).any()) == bool(probability)
        assert (clip != 0).any()


def test_transforms_survive_pickling_for_worker_processes():
    frames = noise_frames(2, 30, 40)
    transform = train_transform()
    copy = pickle.loads(pickle.dumps(transform))
    assert torch.equal(
        copy(frames, np.random.default_rng(1)), transform(frames, np.random.default_rng(1))
    )


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"crop_size": 0}, "crop_size"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"aspect": (2.0, 1.0)}, "aspect"),
        ({"erase_probability": 2.0}, "erase_probability"),
        ({"erase_mode": "rand"}, "mode"),
    ],
)
def test_train_refuses_bad_settings_when_built(changed, name):
    with pytest.raises(ValueError, match=f"^{name} must be .* got "):
        train_transform(**changed)


@pytest.mark.parametrize("shape", [(2, 40, 64), (2, 64, 40), (1, 10, 17), (3, 24, 24), (1, 1, 1)])
@pytest.mark.parametrize("num_crops", [1, 3])
def test_test_views_match_pillow(shape, num_crops):
    frames = np.repeat(
        np.repeat(noise_frames(shape[0], -(-shape[1] // 8), -(-shape[2] // 8)), 8, axis=1),
        8,
        axis=2,
    )[:, : shape[1], : shape[2]]
    transform = TestTransform(crop_size=24, num_crops=num_crops, mean=MEAN, std=STD)
    views = transform(frames)
    assert views.shape == (num_crops, 3, shape[0], 24, 24)
    assert views.dtype == torch.float32
    _, height, width = shape
    short = min(height, width)
    size = (width * 24 // short, height * 24 // short)
    extra_x, extra_y = size[0] - 24, size[1] - 24
    center = ((extra_x + 1) // 2, (extra_y + 1) // 2)
    along_x, along_y = (
        ((0, center[1]), (extra_x, center[1])),
        ((center[0], 0), (center[0], extra_y)),
    )
    first, last = along_y if height > width else along_x
    corners = [center] if num_crops == 1 else [first, center, last]
    for view, (x, y) in zip(views, corners, strict=True):
        for t in range(shape[0]):
            picture = Image.fromarray(frames[t]).resize(size, Image.Resampling.BILINEAR)
            crop = np.asarray(picture)[y : y + 24, x : x + 24] / 255
            expected = ((crop - 0.45) / 0.225).transpose(2, 0, 1)
            np.testing.assert_allclose(view[:, t].numpy(), expected, atol=1.01 / 255 / 0.225)


def test_test_transform_refuses_other_numbers_of_crops():
    with pytest.raises(ValueError, match="num_crops must be 1 or 3, got 5"):
        TestTransform(crop_size=24, num_crops=5, mean=MEAN, std=STD)


def test_frames_that_are_read_only_or_stored_backwards_work():
    frames = noise_frames(2, 30, 40)
    transform = TestTransform(crop_size=24, num_crops=1, mean=MEAN, std=STD)
    turned = np.rot90(frames, 2, axes=(1, 2))
    assert torch.equal(transform(turned), transform(turned.copy()))
    expected = transform(frames)
    frames.flags.writeable = False
    assert torch.equal(transform(frames), expected)


def test_clips_that_share_and_repeat_frames_are_those_of_each_clip_alone():
    frames = noise_frames(11, 30, 40)
    transform = TestTransform(crop_size=24, num_crops=3, mean=MEAN, std=STD)
    clips = np.array([[0, 1, 5, 5], [4, 5, 10, 10], [10, 0, 3, 7]])  # in any order
    pixels = torch.empty((3, 3, 4, 24, 24, 3), dtype=torch.uint8)
    transform.write(frames, clips, pixels)
    for clip, pixels_of_clip in zip(clips, pixels, strict=True):
        assert torch.equal(transform.finish(pixels_of_clip), transform(frames[clip]))
