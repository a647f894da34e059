"""Models have timm's methods, with timm's meaning, compared with timm's own Hiera."""

import inspect

import pytest
import torch

from hiera_video.models.hiera import Hiera, hiera_micro_8x64
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.models.load import from_pretrained
from hiera_video.utils.compat import import_torchvision
from hiera_video.utils.errors import UserError

SIZES = {"embed_dim": 16, "num_heads": 1, "stages": (1, 2, 1, 1), "num_classes": 5}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CLIPS = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def ours():
    return Hiera(input_size=(64, 64), head_init_scale=1.0, **SIZES).eval()


@pytest.fixture
def video():
    return hiera_micro_8x64(num_classes=5).eval()


@pytest.fixture
def theirs(ours):
    import_torchvision()
    module = pytest.importorskip("timm.models.hiera")
    model = module.Hiera(img_size=(64, 64), **SIZES).eval()
    names = {"norm.": "head.norm.", "head.projection.": "head.fc."}
    state = {}
    for name, value in ours.state_dict().items():
        start = next((n for n in names if name.startswith(n)), "")
        state[names.get(start, "") + name.removeprefix(start)] = value
    model.load_state_dict(state)
    return model


def close(one, other):
    return torch.allclose(one, other, atol=1e-5)


METHODS = (
    "forward_head",
    "forward_intermediates",
    "get_classifier",
    "reset_classifier",
    "set_grad_checkpointing",
)


@torch.no_grad()
def test_outputs_and_descriptions_are_those_of_timm(ours, theirs):
    assert close(ours(IMAGES), theirs(IMAGES))
    features, others = ours.forward_features(IMAGES), theirs.forward_features(IMAGES)
    for pre_logits in (False, True):
        want = theirs.forward_head(others, pre_logits=pre_logits)
        assert close(ours.forward_head(features, pre_logits=pre_logits), want)
        assert close(ours.forward_head(features[-1], pre_logits), want)
        assert close(ours.forward_head(features[-1].flatten(1, 2), pre_logits), want)
    assert ours.feature_info == theirs.feature_info
    for name in ("num_classes", "num_features"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert torch.equal(ours.get_classifier().weight, theirs.get_classifier().weight)


@torch.no_grad()
@pytest.mark.parametrize("indices", [None, 1, 3, [0, 2], (-1, 0), [1]])
def test_intermediates_are_those_of_timm(ours, theirs, indices):
    for output_fmt in ("NCHW", "NHWC"):
        wanted = {"indices": indices, "output_fmt": output_fmt, "intermediates_only": True}
        maps = ours.forward_intermediates(IMAGES, **wanted)
        others = theirs.forward_intermediates(IMAGES, **wanted)
        assert len(maps) == len(others)
        assert all(close(one, other) for one, other in zip(maps, others, strict=True))
    last, _ = ours.forward_intermediates(IMAGES, indices, stop_early=False)
    assert close(ours.forward_head(last), theirs(IMAGES))


def test_arguments_have_the_names_of_timm(ours, theirs):
    for name in METHODS:
        here, there = (inspect.signature(getattr(m, name)).parameters for m in (ours, theirs))
        assert set(there) - set(here) <= {"x", "mask", "reset_other", "coarse"}, name
        for common in set(here) & set(there):
            assert here[common].default == there[common].default, (name, common)


@torch.no_grad()
def test_a_video_model_keeps_its_own_dimensions(video):
    maps = video.forward_intermediates(CLIPS, intermediates_only=True)
    shapes = [tuple(grid.shape) for grid in maps]
    assert shapes == [(2, 32, 4, 16, 16), (2, 64, 4, 8, 8), (2, 128, 4, 4, 4), (2, 256, 4, 2, 2)]
    assert [info["reduction"] for info in video.feature_info] == [4, 8, 16, 32]
    assert [info["num_chs"] for info in video.feature_info] == [32, 64, 128, 256]
    assert close(video.forward_head(video.forward_features(CLIPS)), video(CLIPS))
    logits, intermediates = video(CLIPS, return_intermediates=True)  # as before
    assert close(video.forward_head(intermediates), logits)
    autoencoder = mae_hiera_micro_8x64()
    assert [info["reduction"] for info in autoencoder.feature_info] == [4, 8, 16, 16]


@pytest.mark.parametrize("indices", [0, 5, -1, [], [4], [-5], [0, 9]])
def test_stages_that_are_not_there_are_refused(video, indices):
    with pytest.raises(UserError, match="indices must be 1 to 4, or a list of stages from -4 to 3"):
        video.forward_intermediates(CLIPS, indices)


def test_other_wrong_arguments_are_refused(video):
    with pytest.raises(UserError, match="output_fmt must be 'NCHW' or 'NHWC', got 'NLC'"):
        video.forward_intermediates(CLIPS, output_fmt="NLC")
    with pytest.raises(UserError, match="norm must be False"):
        video.forward_intermediates(CLIPS, norm=True)
    with pytest.raises(UserError, match="global_pool must be 'avg', got 'max'"):
        video.reset_classifier(3, "max")
    with pytest.raises(UserError, match=r"num_classes must be at least 0 .*got -1"):
        video.reset_classifier(-1)


def test_a_reset_classifier_is_fresh_and_of_its_place(video, tmp_path):
    before = {name: value.clone() for name, value in video.state_dict().items()}
    video.double().train().reset_classifier(7)
    classifier = video.get_classifier()
    assert (classifier.out_features, classifier.weight.dtype) == (7, torch.float64)
    assert video.head.training
    assert video.num_classes == 7
    assert all(
        torch.equal(value.float(), before[name])
        for name, value in video.state_dict().items()
        if not name.startswith("head.")
    )
    video.float().eval().save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    assert torch.equal(again(CLIPS), video(CLIPS))


def test_a_reset_classifier_is_initialised_as_a_new_model(ours):
    ours.reset_classifier(400)
    assert ours.head.projection.weight.std().item() == pytest.approx(0.02, rel=0.1)
    small = Hiera(input_size=(64, 64), **SIZES)
    small.reset_classifier(400)
    assert small.head.projection.weight.std().item() == pytest.approx(2e-5, rel=0.1)


@torch.no_grad()
def test_without_a_classifier_the_outputs_are_the_features(ours, theirs, tmp_path):
    want = ours.forward_head(ours.forward_features(IMAGES), pre_logits=True)
    for model in (ours, theirs):
        model.reset_classifier(0)
        assert model.num_classes == 0
        assert close(model(IMAGES), want)
    ours.save_pretrained(tmp_path)
    assert close(from_pretrained(tmp_path)(IMAGES), want)
    assert from_pretrained(tmp_path, num_classes=3)(IMAGES).shape == (2, 3)
    bare = Hiera(**{**SIZES, "num_classes": 0, "input_size": (64, 64)})
    assert "head.projection.weight" not in bare.state_dict()


def test_checkpointing_is_switched_and_gives_the_same_gradients(video):
    gradients = []
    for enable in (True, False):
        video.set_grad_checkpointing(enable)
        assert video.act_checkpoint is enable
        video.zero_grad()
        video(CLIPS).sum().backward()
        gradients.append(video.blocks[0].attn.qkv.weight.grad.clone())
    assert close(*gradients)
    video.set_grad_checkpointing()
    assert video.act_checkpoint
