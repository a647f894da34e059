"""What the config's keys do to the model that is built, seen in its forward passes."""

import pytest
import torch
from torch import nn

from hiera_video.config import load_config
from hiera_video.models.build import build_model
from hiera_video.models.parts.layers import HieraBlock
from hiera_video.utils.errors import UserError

SMALL = "DATA.NUM_FRAMES 2 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32"


def make_model(*overrides):
    words = [word for line in (SMALL, *overrides) for word in line.split()]
    return build_model(load_config("configs/Demo/HIERA_MICRO.yaml", words)).train()


def shares(model, modules, of, *, num_clips=256):
    """Return, by module, the mean of what `of` says of input and output (0 where unused)."""
    seen = {module: [] for module in modules}

    def see(module, inputs, output):
        seen[module].append(of(inputs[0], output).double().flatten())

    handles = [module.register_forward_hook(see) for module in modules]
    torch.manual_seed(0)
    with torch.no_grad():
        model(torch.randn(num_clips, 3, 2, 32, 32))
    for handle in handles:
        handle.remove()
    return [torch.cat(parts).mean().item() if parts else 0.0 for parts in seen.values()]


def zeroed(before, after):
    """Tell, of what was not zero, what is now."""
    return (after == 0)[before != 0]


def skipped(before, after):
    """Tell of each clip whether it is as it was."""
    return (after == before).flatten(1).all(1)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_drop_path_rises_from_the_first_block_to_the_configured_rate(rate):
    model = make_model(f"MODEL.DROP_PATH_RATE {rate} MODEL.DROPOUT_RATE 0.6")
    paths = [block.drop_path for block in model.modules() if isinstance(block, HieraBlock)]
    assert len(paths) == 5
    for index, share in enumerate(shares(model, paths, skipped)):
        assert share == pytest.approx(rate * index / 4, abs=0.06)
    assert shares(model.eval(), paths, skipped) == [0] * 5


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_dropout_zeroes_the_configured_share_of_the_heads_features(rate):
    model = make_model(f"MODEL.DROPOUT_RATE {rate} MODEL.DROP_PATH_RATE 0.6")
    (dropout,) = (module for module in model.modules() if isinstance(module, nn.Dropout))
    (share,) = shares(model, [dropout], zeroed, num_clips=32)
    assert share == pytest.approx(rate, abs=0.02)
    assert shares(model.eval(), [dropout], zeroed, num_clips=4) == [0]


@pytest.mark.parametrize("num_layers", [0, 1, 4, 6])
def test_the_configured_layers_are_frozen_and_their_drop_path_is_off(num_layers):
    model = make_model(f"MODEL.FREEZE_LAYERS {num_layers} MODEL.DROP_PATH_RATE 0.4")
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (model.layer_index(name) >= num_layers), name
    paths = [block.drop_path for block in model.modules() if isinstance(block, HieraBlock)]
    for index, share in enumerate(shares(model, paths, skipped)):
        expected = 0.1 * index if index >= num_layers - 1 else 0
        assert share == pytest.approx(expected, abs=0.06 if expected else 0)


def test_a_linear_probe_learns_norm_and_classifier_alone():
    model = make_model("MODEL.LINEAR_PROBE True MODEL.DROP_PATH_RATE 0.4")
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {
        *("norm.weight", "norm.bias", "head.projection.weight", "head.projection.bias")
    }
    assert {getattr(block.drop_path, "drop_prob", 0) for block in model.blocks} == {0}


SSL = "TASK ssl TEST.ENABLE False MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64"


def test_an_autoencoder_has_the_configured_decoder_and_drop_path():
    model = make_model(
        f"{SSL} MASK.DECODER_EMBED_DIM 48 MASK.DECODER_DEPTH 3 MASK.DECODER_NUM_HEADS 6",
        "MODEL.DROP_PATH_RATE 0.4 DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64",
    )
    assert model.decoder_embed.out_features == 48
    assert [block.attn.num_heads for block in model.decoder_blocks] == [6, 6, 6]
    assert model.blocks[-1].drop_path.drop_prob == pytest.approx(0.4)
    assert all(p.requires_grad for p in model.parameters())
    assert model(torch.zeros(2, 3, 2, 64, 64), mask_ratio=0.5).pred.shape == (2 * 2 * 4, 768)


def test_a_baseline_has_the_configured_dropout_too():
    model = make_model("MODEL.ARCH baselines MODEL.MODEL_NAME x3d_s MODEL.DROPOUT_RATE 0.3")
    rates = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    assert rates == {0.3}


def test_the_model_is_built_for_the_configured_clips_and_classes():
    model = make_model("DATA.NUM_FRAMES 6 DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64")
    assert model(torch.zeros(2, 3, 6, 64, 64)).shape == (2, 8)
    assert make_model("MODEL.NUM_CLASSES 5")(torch.zeros(1, 3, 2, 32, 32)).shape == (1, 5)


def test_a_mask_unit_can_be_set():
    model = make_model(
        "MODEL.MASK_UNIT_SIZE [2,16,16] DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 64",
        "DATA.TEST_CROP_SIZE 64",
    )
    assert model.mask_unit_size == (2, 16, 16)
    assert all(type(size) is int for size in model.mask_unit_size)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("MODEL.MASK_UNIT_SIZE [8,8]", "must be a list of 3 numbers"),
        ("MODEL.MASK_UNIT_SIZE [0,8,8]", r"got \[0, 8, 8\]. Try \[1, 8, 8\]"),
        ("MODEL.MASK_UNIT_SIZE [1,8.5,8]", r"must be 3 whole numbers .* got \[1, 8.5, 8\]"),
        ("MODEL.MASK_UNIT_SIZE [2,8,8] DATA.NUM_FRAMES 1", "the first of them 1 for images"),
        ("MODEL.MASK_UNIT_SIZE [1,3,3]", r"must be divisible by \(2, 12, 12\)"),
        ("MODEL.MASK_UNIT_SIZE [1,8,8] MODEL.ARCH baselines MODEL.MODEL_NAME x3d_s", "takes.*mask"),
    ],
)
def test_a_mask_unit_that_does_not_fit_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        make_model(words)
