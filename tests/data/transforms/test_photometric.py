from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from hiera_video.data.transforms import photometric


def pictures() -> torch.Tensor:
    """Five frames with different levels: noise, a ramp, dim, flat, and nearly flat."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 3, 41, 37), dtype=np.uint8)
    frames[1] = np.linspace(0, 255, 37).astype(np.uint8)
    frames[2] = frames[2] // 4 + 20
    frames[3] = np.array([30, 90, 200], dtype=np.uint8)[:, None, None]
    frames[4] = 128
    frames[4, :, 0, :3] = 7
    return torch.from_numpy(frames)


def with_pillow(
    frames: torch.Tensor, function: Callable[[Image.Image], Image.Image]
) -> torch.Tensor:
    results = [
        np.asarray(function(Image.fromarray(frame.permute(1, 2, 0).numpy()))) for frame in frames
    ]
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)


def solarize_add(picture: Image.Image) -> Image.Image:
    levels = np.asarray(picture).astype(int)
    return Image.fromarray(np.where(levels < 128, levels + 77, levels).astype(np.uint8))


# name, ours, Pillow's, largest difference in levels
CASES: list[tuple[str, Callable, Callable, int]] = [
    ("invert", photometric.invert, ImageOps.invert, 0),
    # Pillow calculates in floats and cuts off: its brightest level may end at 254.
    ("auto_contrast", photometric.auto_contrast, ImageOps.autocontrast, 1),
    ("equalize", photometric.equalize, ImageOps.equalize, 0),
    ("solarize_add", lambda x: photometric.solarize_add(x, 77), solarize_add, 0),
]
for bits in (1, 2, 4, 8):
    CASES.append(
        (
            f"posterize {bits}",
            lambda x, bits=bits: photometric.posterize(x, bits),
            lambda p, bits=bits: ImageOps.posterize(p, bits),
            0,
        )
    )
for threshold in (0, 1, 77, 255, 256):
    CASES.append(
        (
            f"solarize {threshold}",
            lambda x, t=threshold: photometric.solarize(x, t),
            lambda p, t=threshold: ImageOps.solarize(p, t),
            0,
        )
    )
for factor in (0.1, 0.37, 1.0, 1.63, 1.9):
    for function, enhancer, tolerance in (
        (photometric.brightness, ImageEnhance.Brightness, 0),
        # The mean of rounded lumas, in Pillow, may round to a neighbouring level.
        (photometric.contrast, ImageEnhance.Contrast, 1),
        (photometric.color, ImageEnhance.Color, 1),
        (photometric.sharpness, ImageEnhance.Sharpness, 1),
    ):
        CASES.append(
            (
                f"{function.__name__} {factor}",
                lambda x, f=function, factor=factor: f(x, factor),
                lambda p, e=enhancer, factor=factor: e(p).enhance(factor),
                tolerance,
            )
        )


@pytest.mark.parametrize(
    ("ours", "pillow", "tolerance"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_operation_matches_pillow(ours, pillow, tolerance):
    frames = pictures()
    before = frames.clone()
    result = ours(frames)
    expected = with_pillow(frames, pillow)
    difference = (result.int() - expected.int()).abs()
    assert result.dtype == torch.uint8
    assert difference.max() <= tolerance
    if ours is not photometric.auto_contrast:
        assert (difference > 0).float().mean() < 0.02
    assert torch.equal(frames, before)
    innermost = frames.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours(innermost), result)


def test_auto_contrast_stretches_every_plane_to_the_full_range():
    frames = pictures()[[0, 1, 2, 4]]
    result = photometric.auto_contrast(frames).flatten(2)
    assert (result.amin(2) == 0).all()
    assert (result.amax(2) == 255).all()


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 2, 5), (1, 3, 3, 3)])
def test_tiny_frames(shape):
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    for _, ours, _, _ in CASES:
        assert ours(frames).shape == shape


def test_factor_1_changes_nothing():
    frames = pictures()
    for function in (
        photometric.brightness,
        photometric.contrast,
        photometric.color,
        photometric.sharpness,
    ):
        assert torch.equal(function(frames, 1.0), frames)


def test_posterize_to_no_bits_is_black():
    assert (photometric.posterize(pictures(), 0) == 0).all()


def test_flat_areas_stay_under_sharpness():
    frames = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, 3, 4, 4)
    for factor in (0.1, 0.37, 1.63, 1.9):
        assert torch.equal(photometric.sharpness(frames, factor), frames)


@pytest.mark.parametrize("shape", [(256,), (2, 256), (2, 3, 256)])
def test_look_up_takes_a_table_for_all_per_frame_or_per_plane(shape):
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (2, 3, 5, 4), dtype=np.uint8))
    tables = rng.integers(0, 256, shape, dtype=np.uint8)
    result = photometric.look_up(frames, tables)
    for t in range(2):
        for c in range(3):
            table = tables[(t, c)[: tables.ndim - 1]]
            assert np.array_equal(result[t, c].numpy(), table[frames[t, c].numpy()])
