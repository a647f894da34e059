"""Against the authors' package, where it is installed (`make test-all` does): the `peers` extra."""

from importlib.util import find_spec

import pytest
import torch

import hiera_video
from hiera_video.benchmark.timing import published_model
from hiera_video.models import masking

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("hiera") is None, reason="the peers extra is not installed"),
]


def pair(name):
    """Return the published model and ours with the same random weights, both in evaluation."""
    torch.manual_seed(0)
    theirs = published_model(name)
    if hasattr(theirs, "head"):
        torch.nn.init.normal_(theirs.head.projection.weight, std=0.02)
    else:  # its biases start at 0, where one left out would not be seen
        for parameter_name, parameter in theirs.named_parameters():
            if parameter_name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.02)
    ours = getattr(hiera_video, name)().eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("hiera_base_16x224", (16, 224, 224)),
        ("hiera_tiny_224", (224, 224)),
        ("hiera_base_plus_224", (224, 224)),
    ],
)
def test_logits_and_feature_maps_are_the_published_ones_with_the_same_weights(name, size):
    theirs, ours = pair(name)
    clips = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected, their_maps = theirs(clips, return_intermediates=True)
        got, maps = ours(clips, return_intermediates=True)
        features = ours.forward_features(clips)
    assert torch.allclose(got.log_softmax(-1), expected.log(), atol=1e-4)
    assert got.std() > 0.01
    assert len(maps) == len(their_maps) == 4
    for one, other, feature in zip(maps, their_maps, features, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
        assert torch.equal(one, feature)
        assert other.std() > 0.1


@pytest.mark.parametrize(
    ("name", "size", "num_clips", "ratio"),
    [
        ("mae_hiera_base_16x224", (16, 224, 224), 1, 0.9),
        ("mae_hiera_tiny_224", (224, 224), 2, 0.6),
    ],
)
@pytest.mark.parametrize("strategy", ["random", "tube"])
def test_an_autoencoders_loss_is_the_published_one_for_the_same_units(
    name, size, num_clips, ratio, strategy
):
    theirs, ours = pair(name)
    clips = torch.randn(num_clips, 3, *size)
    visible = getattr(masking, strategy)(ours.unit_grid, num_clips=num_clips, ratio=ratio)
    with torch.no_grad():
        loss, pred, label, their_mask = theirs(clips, mask_ratio=ratio, mask=visible)
        output = ours(clips, visible)
    assert torch.equal(their_mask.bool().reshape(visible.shape), visible)
    assert output.loss.item() == pytest.approx(loss.item(), abs=1e-5)
    assert torch.allclose(output.pred, pred, atol=1e-4)
    assert torch.allclose(output.target, label, atol=1e-4)


def test_an_autoencoders_gradient_is_the_published_one():
    theirs, ours = pair("mae_hiera_tiny_224")
    clips = torch.randn(2, 3, 224, 224)
    visible = masking.random(ours.unit_grid, num_clips=2, ratio=0.6)
    theirs(clips, mask=visible)[0].backward()
    ours(clips, visible).loss.backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        difference = (parameter.grad - expected[name].grad).norm()
        assert difference <= 1e-4 * expected[name].grad.norm() + 1e-8, name


@pytest.mark.parametrize("name", ["hiera_base_16x224", "mae_hiera_base_16x224"])
def test_initial_weights_have_the_published_spread(name):
    torch.manual_seed(0)
    ours = getattr(hiera_video, name)().state_dict()
    for key, value in published_model(name).state_dict().items():
        assert ours[key].mean().item() == pytest.approx(value.mean().item(), abs=0.01), key
        if value.numel() > 1000:
            assert ours[key].std().item() == pytest.approx(value.std().item(), rel=0.1, abs=1e-6)
