import numpy as np
import pytest
import torch
from PIL import Image

from hiera_video.data.transforms import geometric

FILL = (115.0, 20.0, 200.0)


def smooth_frames(height: int = 45, width: int = 60) -> torch.Tensor:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (2, 6, 7, 3), dtype=np.uint8)
    frames = [Image.fromarray(f).resize((width, height), Image.Resampling.BICUBIC) for f in small]
    return torch.from_numpy(np.stack([np.asarray(f) for f in frames])).permute(0, 3, 1, 2)


def affine_with_pillow(frame: torch.Tensor, source: tuple[float, ...]) -> np.ndarray:
    picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
    colour = tuple(int(level) for level in FILL)
    warped = picture.transform(
        picture.size, Image.Transform.AFFINE, source, Image.Resampling.BILINEAR, fillcolor=colour
    )
    return np.asarray(warped).transpose(2, 0, 1)


def assert_nearly_equal(ours: torch.Tensor, expected: np.ndarray) -> None:
    difference = np.abs(ours.numpy().astype(int) - expected)
    # One level, as Pillow cuts off where we round. Whether a pixel exactly on the frame's edge is
    # in or out is a matter of the last bit.
    assert (difference > 1).mean() < 0.003


@pytest.mark.parametrize("degrees", [-30.0, -7.3, 0.0, 12.5, 21.0, 90.0])
def test_rotate_matches_pillow(degrees):
    frames = smooth_frames()
    for ours, frame in zip(geometric.rotate(frames, degrees, fill=FILL), frames, strict=True):
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
        colour = tuple(int(level) for level in FILL)
        expected = picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=colour)
        assert_nearly_equal(ours, np.asarray(expected).transpose(2, 0, 1))


def test_a_plane_is_sampled_exactly_and_rounded():
    # Bilinear sampling of a linear picture is exact, so the result is known without resampling.
    x, y = torch.meshgrid(torch.arange(60), torch.arange(40), indexing="xy")
    frames = (3 * x + 1 * y + 7).to(torch.uint8).expand(1, 3, 40, 60)
    cos, sin = np.cos(np.radians(17.0)), np.sin(np.radians(17.0))
    source_x = cos * (x - 29.5) - sin * (y - 19.5) + 29.5
    source_y = sin * (x - 29.5) + cos * (y - 19.5) + 19.5
    inside = (source_x >= 0) & (source_x <= 59) & (source_y >= 0) & (source_y <= 39)
    exact = (3 * source_x + source_y + 7)[inside]
    error = geometric.rotate(frames, 17.0, fill=FILL)[0, 0][inside] - exact
    assert error.abs().max() < 0.51
    assert error.mean().abs() < 0.03


@pytest.mark.parametrize("slope", [-0.3, -0.11, 0.0, 0.21, 0.3])
def test_shear_matches_pillow(slope):
    frames = smooth_frames()
    for x, y, frame in zip(
        geometric.shear_x(frames, slope, fill=FILL),
        geometric.shear_y(frames, slope, fill=FILL),
        frames,
        strict=True,
    ):
        assert_nearly_equal(x, affine_with_pillow(frame, (1, slope, 0, 0, 1, 0)))
        assert_nearly_equal(y, affine_with_pillow(frame, (1, 0, 0, slope, 1, 0)))


@pytest.mark.parametrize("pixels", [-20, -1, 0, 3, 27])
def test_translate_matches_pillow_at_whole_pixels(pixels):
    frames = smooth_frames()
    for x, y, frame in zip(
        geometric.translate_x(frames, pixels / 60, fill=FILL),
        geometric.translate_y(frames, pixels / 45, fill=FILL),
        frames,
        strict=True,
    ):
        assert np.array_equal(x.numpy(), affine_with_pillow(frame, (1, 0, pixels, 0, 1, 0)))
        assert np.array_equal(y.numpy(), affine_with_pillow(frame, (1, 0, 0, 0, 1, pixels)))


def test_translate_by_the_whole_frame_leaves_the_fill():
    frames = smooth_frames()
    fill = torch.tensor(FILL).to(torch.uint8).view(3, 1, 1).expand_as(frames)
    for share in (-1.0, 1.0):
        assert torch.equal(geometric.translate_x(frames, share, fill=FILL), fill)
        assert torch.equal(geometric.translate_y(frames, share, fill=FILL), fill)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 1, 9), (3, 3, 2, 2)])
def test_tiny_frames_and_memory_layouts(shape):
    frames = torch.full(shape, 50, dtype=torch.uint8)
    for function, amount in (
        (geometric.rotate, 20.0),
        (geometric.shear_x, 0.2),
        (geometric.shear_y, -0.2),
        (geometric.translate_x, 0.4),
        (geometric.translate_y, -0.4),
    ):
        result = function(frames, amount, fill=FILL)
        assert result.shape == shape
        assert result.dtype == torch.uint8
        assert (frames == 50).all()
        innermost = frames.contiguous(memory_format=torch.channels_last)
        assert torch.equal(function(innermost, amount, fill=FILL), result)
