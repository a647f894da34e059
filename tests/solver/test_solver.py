import math

import pytest
import torch

from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.solver.losses import classification_loss
from hiera_video.solver.param_groups import build_param_groups
from hiera_video.solver.schedule import cosine_with_warmup, scaled_lr

SCHEDULE = {
    "base_lr": 1.0,
    "end_lr": 0.1,
    "warmup_epochs": 2.0,
    "warmup_start_lr": 0.2,
    "max_epochs": 10.0,
}


@pytest.mark.parametrize(
    ("epoch", "lr"),
    [(0, 0.2), (0.5, 0.4), (1, 0.6), (2, 1.0), (6, 0.55), (10, 0.1), (12, 0.1)],
)
def test_cosine_with_warmup_by_fractional_epoch(epoch, lr):
    assert cosine_with_warmup(epoch, **SCHEDULE) == pytest.approx(lr)


def test_without_warmup_the_cosine_starts_at_once():
    lr = cosine_with_warmup(0, **(SCHEDULE | {"warmup_epochs": 0.0}))
    assert lr == 1.0


def test_learning_rate_scales_linearly_with_the_effective_batch():
    assert scaled_lr(8e-4, effective_batch=64, base_batch=256) == pytest.approx(2e-4)
    assert scaled_lr(8e-4, effective_batch=64, base_batch=0) == 8e-4


def groups_by_name(model, **settings):
    groups = build_param_groups(
        model.named_parameters(),
        layer_index=model.layer_index,
        num_layers=model.num_layers,
        **({"weight_decay": 0.05, "layer_decay": 0.5} | settings),
    )
    return {name: group for group in groups for name in group["names"]}


def test_one_dimensional_and_position_parameters_do_not_decay():
    model = hiera_micro_8x64()
    by_name = groups_by_name(model)
    assert by_name.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and "pos_embed" not in name
        assert by_name[name]["weight_decay"] == (0.05 if decays else 0.0), name


def test_an_autoencoders_positions_and_mask_token_do_not_decay():
    model = mae_hiera_micro_8x64()
    by_name = groups_by_name(model)
    assert by_name.keys() == dict(model.named_parameters()).keys()
    kept = {"pos_embed_spatial", "pos_embed_temporal", "decoder_pos_embed", "mask_token"}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and name not in kept
        assert by_name[name]["weight_decay"] == (0.05 if decays else 0.0), name
    assert by_name["multi_scale_fusion_heads.0.weight"]["weight_decay"] == 0.05


def test_an_autoencoders_decoder_learns_at_the_whole_rate():
    by_name = groups_by_name(mae_hiera_micro_8x64())
    for name in ("mask_token", "decoder_pos_embed", "decoder_blocks.0.attn.qkv.weight"):
        assert by_name[name]["lr_scale"] == 1
    assert by_name["blocks.4.attn.qkv.weight"]["lr_scale"] == 0.5
    assert by_name["pos_embed_spatial"]["lr_scale"] == 0.5**6


def test_each_layer_learns_at_its_share():
    by_name = groups_by_name(hiera_micro_8x64(stages=(1, 1, 3, 1)))
    assert by_name["head.projection.weight"]["lr_scale"] == 1
    assert by_name["blocks.5.mlp.fc1.weight"]["lr_scale"] == 0.5
    assert by_name["blocks.0.mlp.fc1.weight"]["lr_scale"] == 0.5**6
    assert by_name["pos_embed_temporal"]["lr_scale"] == 0.5**7


def test_frozen_parameters_are_left_out():
    model = hiera_micro_8x64()
    model.patch_embed.requires_grad_(False)
    assert "patch_embed.proj.weight" not in groups_by_name(model)


def test_loss_smooths_classes_and_probabilities_alike():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float32)
    labels = torch.tensor([0, 2, 3])
    one_hot = torch.eye(4)[labels]
    smoothed = 0.9 * one_hot + 0.1 / 4
    expected = -(smoothed * logits.log_softmax(-1)).sum(-1).mean()
    for targets in (labels, one_hot):
        assert torch.allclose(classification_loss(logits, targets, label_smoothing=0.1), expected)


def test_loss_of_half_precision_logits_is_computed_in_float32():
    logits = torch.full((1, 4), 3.0, dtype=torch.bfloat16)
    loss = classification_loss(logits, torch.tensor([1]), label_smoothing=0.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(4), rel=1e-6)
