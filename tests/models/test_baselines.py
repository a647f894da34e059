import pytest
import torch

from hiera_video.models.baselines import x3d_s
from hiera_video.utils.errors import UserError


def test_x3d_gives_logits_for_the_configured_clip():
    model = x3d_s(input_size=(8, 64, 64), num_classes=5)
    logits = model(torch.randn(2, 3, 8, 64, 64))
    assert logits.shape == (2, 5)
    assert not torch.allclose(logits.sum(-1), torch.ones(2))


def test_x3d_refuses_what_it_lacks():
    with pytest.raises(UserError, match="DROP_PATH_RATE must be 0"):
        x3d_s(drop_path_rate=0.1)
    with pytest.raises(UserError, match="square and >= 32"):
        x3d_s(input_size=(8, 64, 16))
