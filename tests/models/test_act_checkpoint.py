"""Activations that are computed again: the same numbers from less memory."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from hiera_video.config import load_config
from hiera_video.models import masking
from hiera_video.models.build import build_model
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.utils.errors import UserError


def classifier():
    model = hiera_micro_8x64(num_classes=5, drop_path_rate=0.5)
    return model, lambda clips: model(clips).square().sum()


def autoencoder():
    model = mae_hiera_micro_8x64(drop_path_rate=0.5)
    generator = torch.Generator().manual_seed(0)
    visible = masking.random(model.unit_grid, num_clips=2, ratio=0.5, generator=generator)
    return model, lambda clips: model(clips, visible).loss


def step(model, loss_of):
    """Return loss, gradients, and how many bytes the forward pass kept."""
    clips = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(1))
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(2)  # drop path
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(clips)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return loss, gradients, sum(kept.values())


@pytest.mark.parametrize("make", [classifier, autoencoder])
def test_loss_and_gradients_are_the_same_to_the_bit_and_less_is_kept(make):
    torch.manual_seed(0)
    model, loss_of = make()
    keys = list(model.state_dict())
    loss, gradients, kept = step(model, loss_of)
    model.act_checkpoint = True
    again, again_gradients, less = step(model, loss_of)
    assert torch.equal(loss, again)
    assert all(torch.equal(gradients[name], again_gradients[name]) for name in gradients)
    assert less < 0.6 * kept
    assert list(model.state_dict()) == keys


def test_the_config_says_so():
    demo = "configs/Demo/HIERA_MICRO.yaml"
    assert build_model(load_config(demo, ["MODEL.ACT_CHECKPOINT", "True"])).act_checkpoint
    assert not build_model(load_config(demo, [])).act_checkpoint
    baseline = "MODEL.ACT_CHECKPOINT True MODEL.ARCH baselines MODEL.MODEL_NAME x3d_s"
    with pytest.raises(UserError, match="MODEL.ACT_CHECKPOINT must be False for x3d_s"):
        build_model(load_config(demo, baseline.split()))
