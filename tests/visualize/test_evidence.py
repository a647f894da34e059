"""Evidence adds up to the logit, and lies where it was put."""

import numpy as np
import pytest
import torch
from torch import nn

from hiera_video.models.hiera import Hiera, hiera_micro_8x64
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.models.mvit import mvit_micro_8x64
from hiera_video.models.vit import vit_micro_8x64
from hiera_video.utils.errors import UserError
from hiera_video.visualize.evidence import AGAINST, FOR, draw_evidence, find_evidence


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = hiera_micro_8x64(num_classes=5).eval()
    with torch.no_grad():  # a norm and a head that do something
        for parameter in (*model.norm.parameters(), *model.head.parameters()):
            parameter.add_(torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("label", [None, 0, 4])
def test_evidence_adds_up_to_the_logit(model, label):
    clip = torch.randn(3, 8, 64, 64)
    with torch.no_grad():
        logits = model(clip[None])[0]
    found = find_evidence(model, clip, label)
    assert found.label == (int(logits.argmax()) if label is None else label)
    assert found.score == pytest.approx(float(logits.softmax(0)[found.label]), rel=1e-5)
    above = float(logits[found.label] - logits.mean())
    assert found.map_THW.mean() + found.bias == pytest.approx(above, abs=1e-4)
    assert found.map_THW.std() > 0


class Planted(Hiera):
    """Its last stage has what is planted at one token, in spatial order, and nothing elsewhere."""

    def feature_maps(self, stage_outputs):
        *others, last = super().feature_maps(stage_outputs)
        planted = torch.zeros_like(last)
        planted[0, 2, 0, 1] = self.planted
        return [*others, planted]


def test_evidence_lies_where_it_was_put(model):
    planted = Planted(**model.settings).eval()
    planted.load_state_dict(model.state_dict())
    planted.planted = model.head.projection.weight[3].detach() * 4
    found = find_evidence(planted, torch.randn(3, 8, 64, 64), 3)
    strongest = np.unravel_index(found.map_THW.argmax(), found.map_THW.shape)
    assert strongest == (2, 0, 1)
    others = np.delete(found.map_THW.ravel(), found.map_THW.argmax())
    assert np.abs(others).max() < 1e-6 * found.map_THW.max()


def test_colours_say_for_and_against_and_how_much():
    frames = np.full((4, 8, 8, 3), 100, np.uint8)
    map_THW = np.zeros((2, 2, 2), np.float32)
    map_THW[0, 0, 0], map_THW[1, 1, 1] = 2.0, -2.0
    drawn = draw_evidence(frames, map_THW)
    assert drawn.shape == frames.shape
    assert drawn.dtype == np.uint8

    def nearer(pixel, colour):
        return np.abs(pixel - np.array(colour)).sum() < np.abs(100 - np.array(colour)).sum()

    assert nearer(drawn[0, 0, 0], FOR)
    assert nearer(drawn[-1, -1, -1], AGAINST)
    assert (drawn[0, -1, 0] == 100).all()
    assert (draw_evidence(frames, np.zeros((2, 2, 2), np.float32)) == frames).all()


def test_only_a_video_classifier_has_evidence(model):
    clip = torch.randn(3, 8, 64, 64)
    for other in (mae_hiera_micro_8x64(), nn.Linear(1, 1)):
        with pytest.raises(UserError, match="Hiera that classifies videos"):
            find_evidence(other, clip)
    with pytest.raises(UserError, match="--label must be in 0 to 4, got 5"):
        find_evidence(model, clip, 5)


@pytest.mark.parametrize(
    "model",
    [mvit_micro_8x64(num_classes=3), vit_micro_8x64(num_classes=3, class_token=True)],
    ids=["mvit", "vit"],
)
def test_a_head_that_takes_no_mean_has_no_evidence(model):
    with pytest.raises(UserError, match="whose head takes the mean of all tokens"):
        find_evidence(model.eval(), torch.zeros(3, 8, 64, 64))


def test_evidence_of_a_plain_vit_sums_to_its_logit():
    model = vit_micro_8x64(num_classes=3).eval()
    clip = torch.randn(3, 8, 64, 64)
    evidence = find_evidence(model, clip, 1)
    assert evidence.map_THW.shape == (4, 8, 8)
    logits = model(clip[None])[0]
    wanted = (logits[1] - logits.mean()).item()
    assert evidence.map_THW.mean() + evidence.bias == pytest.approx(wanted, abs=1e-6)
