import math

import pytest
import torch
from torch import nn

from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.models.parts.initialise import initialise
from hiera_video.utils.errors import UserError


def make(scheme):
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(100, 300), nn.Conv3d(3, 64, (3, 7, 7)), nn.LayerNorm(50)])
    before = layers[1].bias.clone()
    nn.init.constant_(layers[2].weight, 3.0)
    initialise(layers.modules(), scheme)
    assert torch.equal(layers[1].bias, before)  # PyTorch's default, in both
    assert (layers[2].weight == 1).all()
    return layers


def test_the_published_classifiers_scheme():
    linear, convolution, norm = make("trunc_normal")
    for layer in (linear, convolution):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert (linear.bias == 0.02).all()
    assert (norm.bias == 0.02).all()


def test_the_published_autoencoders_scheme():
    linear, convolution, norm = make("xavier")
    for layer, fans in ((linear, 100 + 300), (convolution, 3 * 3 * 7 * 7 + 64)):
        bound = math.sqrt(6 / fans)
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert (linear.bias == 0).all()
    assert (norm.bias == 0).all()


def test_a_scheme_that_is_none_is_refused():
    with pytest.raises(UserError, match="weight_init must be one of .*'trunc_normal'.*got 'he'"):
        initialise([], "he")


def test_an_autoencoder_starts_as_published():
    torch.manual_seed(0)
    model = mae_hiera_micro_8x64(decoder_embed_dim=256)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert all((module.bias == 0).all() for module in linears)
    for token in (model.mask_token, model.decoder_pos_embed, model.pos_embed_spatial):
        assert token.std().item() == pytest.approx(0.02, rel=0.15)
    for head in model.multi_scale_fusion_heads:  # a convolution's default
        bound = 1 / math.sqrt(head.weight[0].numel())
        for values in (head.weight, head.bias):
            assert values.abs().max().item() == pytest.approx(bound, rel=0.05)
            assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
