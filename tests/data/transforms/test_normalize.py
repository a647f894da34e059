import numpy as np
import pytest
import torch

from hiera_video.data.transforms.normalize import to_clip

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


@pytest.mark.parametrize("channels_innermost", [True, False])
def test_clip_is_the_normalised_transpose(channels_innermost):
    rng = np.random.default_rng(0)
    frames_TCHW = rng.integers(0, 256, (4, 3, 5, 7), dtype=np.uint8)
    tensor = torch.from_numpy(frames_TCHW)
    if channels_innermost:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    clip = to_clip(tensor, MEAN, STD)
    expected = (frames_TCHW / 255.0 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert clip.dtype == torch.float32
    assert clip.is_contiguous()
    np.testing.assert_allclose(clip.numpy(), expected.transpose(1, 0, 2, 3), atol=1e-6)
    assert np.array_equal(tensor.numpy(), frames_TCHW)


def test_out_receives_the_clip():
    frames = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    views = torch.full((2, 3, 2, 4, 4), 9.0)
    to_clip(frames, MEAN, STD, out=views[1])
    assert torch.equal(views[1], to_clip(frames, MEAN, STD))
    assert (views[0] == 9.0).all()


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.2]), (MEAN, [0.2, 0.0, 0.2]), (MEAN, [1.0])])
def test_numbers_that_do_not_fit_the_channels_are_refused(mean, std):
    with pytest.raises(ValueError, match="mean and std must have 3 numbers"):
        to_clip(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), mean, std)
