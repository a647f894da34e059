import pytest
import torch

from hiera_video.models.parts.patches import (
    normalised,
    patches_to_frames,
    pixel_patches,
    statistics,
)


def test_a_videos_patches_are_of_each_tokens_first_frame_channel_last():
    clips = torch.randn(2, 3, 6, 8, 12)
    patches = pixel_patches(clips, side=4, frame_stride=2)
    assert patches.shape == (2, 3 * 2 * 3, 4 * 4 * 3)
    token = 0
    for time in range(3):
        for y in range(2):
            for x in range(3):
                pixels = clips[:, :, 2 * time, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
                assert torch.equal(patches[:, token], pixels.permute(0, 2, 3, 1).flatten(1))
                token += 1


def test_an_images_patches_are_channel_first():
    images = torch.randn(2, 3, 8, 12)
    patches = pixel_patches(images, side=4)
    assert patches.shape == (2, 2 * 3, 3 * 4 * 4)
    for token in range(6):
        y, x = divmod(token, 3)
        pixels = images[:, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        assert torch.equal(patches[:, token], pixels.flatten(1))


def test_patches_go_back_where_they_came_from():
    clips, images = torch.randn(2, 3, 6, 8, 12), torch.randn(2, 3, 8, 12)
    patches = pixel_patches(clips, side=4, frame_stride=2)
    assert torch.equal(patches_to_frames(patches, grid=(3, 2, 3), side=4), clips[:, :, ::2])
    assert torch.equal(
        patches_to_frames(pixel_patches(images, side=4), grid=(2, 3), side=4), images
    )


@pytest.mark.parametrize("num_values", [2, 768])
def test_each_patch_is_normalised_by_its_own_unbiased_variance(num_values):
    patches = 5 + 3 * torch.randn(4, 7, num_values, dtype=torch.float64)
    got = normalised(patches)
    mean = patches.sum(-1, keepdim=True) / num_values
    variance = ((patches - mean) ** 2).sum(-1, keepdim=True) / (num_values - 1)
    assert torch.allclose(got, (patches - mean) / (variance + 1e-6).sqrt())
    mean_, deviation = statistics(patches)
    assert torch.allclose(got * deviation + mean_, patches)


def test_a_patch_of_one_colour_is_nought():
    assert torch.equal(normalised(torch.full((2, 768), 0.5)), torch.zeros(2, 768))
