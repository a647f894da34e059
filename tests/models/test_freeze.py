import pytest
import torch
from torch import nn

from hiera_video.models.build import freeze_layers
from hiera_video.models.hiera import hiera_micro_8x64

BLOCKS = [f"blocks.{i}" for i in range(5)]
LAYERS = [("patch_embed", "pos_embed"), *((block,) for block in BLOCKS), ("norm", "head")]


def make(num_layers):
    torch.manual_seed(0)
    model = hiera_micro_8x64(input_size=(2, 32, 32), num_classes=3, drop_path_rate=0.5)
    freeze_layers(model, num_layers)
    return model


@pytest.mark.parametrize("num_layers", range(7))
def test_the_first_layers_keep_their_weights_and_the_others_learn(num_layers):
    model = make(num_layers)
    frozen = tuple(name for layer in LAYERS[:num_layers] for name in layer)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(frozen)), name
    model(torch.randn(4, 3, 2, 32, 32)).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name


@pytest.mark.parametrize("num_layers", [0, 1, 2, 4, 6])
def test_drop_path_is_off_in_frozen_blocks_alone(num_layers):
    rates = [b.drop_path.drop_prob for b in make(num_layers).blocks]
    expected = [0, 0.125, 0.25, 0.375, 0.5]
    num_blocks = max(num_layers - 1, 0)
    assert rates == pytest.approx([0.0] * num_blocks + expected[num_blocks:])


def test_a_body_that_is_all_frozen_is_the_same_in_training_and_evaluation():
    model = make(6)
    clips = torch.randn(4, 3, 2, 32, 32)
    for one, other in zip(
        model.train().forward_features(clips), model.eval().forward_features(clips), strict=True
    ):
        assert torch.equal(one, other)


def test_a_model_without_layers_learns_as_a_whole():
    model = nn.Linear(2, 2)
    freeze_layers(model, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())
