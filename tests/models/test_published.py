"""Against the authors' package, where it is installed (`make test-all` does): the `peers` extra."""

from importlib.util import find_spec

import pytest
import torch

from hiera_video.engine.benchmark import published_model
from hiera_video.models.hiera import hiera_base_16x224

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("hiera") is None, reason="the peers extra is not installed"),
]


@pytest.fixture(scope="module")
def theirs():
    return published_model("hiera_base_16x224")


def test_hiera_base_gives_the_published_logits_with_the_same_weights(theirs):
    torch.manual_seed(0)
    torch.nn.init.normal_(theirs.head.projection.weight, std=0.02)
    ours = hiera_base_16x224().eval()
    ours.load_state_dict(theirs.state_dict())
    clips = torch.randn(1, 3, 16, 224, 224)
    with torch.no_grad():
        expected = theirs(clips).log()
        got = ours(clips).log_softmax(-1)
    assert torch.allclose(got, expected, atol=1e-4)
    assert got.std() > 0.01


def test_initial_weights_have_the_published_spread(theirs):
    torch.manual_seed(0)
    ours = hiera_base_16x224().state_dict()
    for name, value in published_model("hiera_base_16x224").state_dict().items():
        assert ours[name].mean().item() == pytest.approx(value.mean().item(), abs=0.01), name
        if value.numel() > 1000:
            assert ours[name].std().item() == pytest.approx(value.std().item(), rel=0.1, abs=1e-6)
