"""What the config's SOLVER keys do to weights and learning rate, against formulas written here."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hiera_video.config import load_config
from hiera_video.models.build import build_model
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.solver.build import build_lr_schedule, build_optimizer, effective_batch, set_lr


def make_cfg(*overrides):
    words = [word for line in overrides for word in line.split()]
    return load_config("configs/Demo/HIERA_MICRO.yaml", words)


class TwoLayers(nn.Module):
    """A matrix in the lower layer and a vector in the upper one; numbers in double precision."""

    num_layers = 2

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64))
        self.vector = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))

    def layer_index(self, name):
        return ("matrix", "vector").index(name)


# The gradients of three steps: of different size, so that every average of them shows.
GRADIENTS = [
    {"matrix": np.array([[1.0, -1.0], [2.0, 0.5]]) * size, "vector": np.array([3.0, -0.1]) * size}
    for size in (1.0, -4.0, 0.25)
]


def trained(cfg, *, lrs):
    """Return the weights after each step at the given learning rates."""
    model = TwoLayers()
    optimizer = build_optimizer(cfg, model)
    history = []
    for lr, gradients in zip(lrs, GRADIENTS, strict=False):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradients[name])
        set_lr(optimizer, lr)
        optimizer.step()
        history.append({n: p.detach().numpy().copy() for n, p in model.named_parameters()})
    return history


def start():
    return {name: value.detach().numpy().copy() for name, value in TwoLayers().named_parameters()}


def by_hand_adamw(lrs, *, betas, weight_decay, scales, eps=1e-8):
    """Loshchilov & Hutter, arXiv 1711.05101, algorithm 2, with the decay times the rate."""
    history, weights = [], start()
    means = dict.fromkeys(weights, 0.0)
    squares = dict.fromkeys(weights, 0.0)
    for step, (lr, gradients) in enumerate(zip(lrs, GRADIENTS, strict=False), start=1):
        for name, gradient in gradients.items():
            rate = lr * scales[name]
            decay = weight_decay if weights[name].ndim > 1 else 0.0
            means[name] = betas[0] * means[name] + (1 - betas[0]) * gradient
            squares[name] = betas[1] * squares[name] + (1 - betas[1]) * gradient**2
            mean = means[name] / (1 - betas[0] ** step)
            square = squares[name] / (1 - betas[1] ** step)
            weights[name] = weights[name] * (1 - rate * decay)
            weights[name] = weights[name] - rate * mean / (np.sqrt(square) + eps)
        history.append(dict(weights))
    return history


def by_hand_sgd(lrs, *, momentum, weight_decay):
    """Nesterov momentum as Sutskever et al. 2013 have it, in PyTorch's form."""
    history, weights = [], start()
    speeds = dict.fromkeys(weights, 0.0)
    for lr, gradients in zip(lrs, GRADIENTS, strict=False):
        for name, gradient in gradients.items():
            decay = weight_decay if weights[name].ndim > 1 else 0.0
            gradient = gradient + decay * weights[name]
            speeds[name] = momentum * speeds[name] + gradient
            weights[name] = weights[name] - lr * (gradient + momentum * speeds[name])
        history.append(dict(weights))
    return history


def assert_same(history, expected):
    assert len(history) == len(expected)
    for weights, by_hand in zip(history, expected, strict=True):
        for name, value in weights.items():
            np.testing.assert_allclose(value, by_hand[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.8), (0.0, 0.95)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adamw_follows_betas_and_weight_decay(betas, weight_decay):
    cfg = make_cfg(
        f"SOLVER.BETAS [{betas[0]},{betas[1]}] SOLVER.WEIGHT_DECAY {weight_decay}",
        "SOLVER.MOMENTUM 0.3 SOLVER.LAYER_DECAY 1.0",
    )
    lrs, scales = [0.1, 0.2, 0.05], {"matrix": 1.0, "vector": 1.0}
    expected = by_hand_adamw(lrs, betas=betas, weight_decay=weight_decay, scales=scales)
    assert_same(trained(cfg, lrs=lrs), expected)


@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_sgd_follows_momentum_and_weight_decay(momentum, weight_decay):
    cfg = make_cfg(
        f"SOLVER.OPTIMIZING_METHOD sgd SOLVER.MOMENTUM {momentum}",
        f"SOLVER.WEIGHT_DECAY {weight_decay}",
    )
    lrs = [0.1, 0.2, 0.05]
    expected = by_hand_sgd(lrs, momentum=momentum, weight_decay=weight_decay)
    assert_same(trained(cfg, lrs=lrs), expected)


def test_the_lower_layer_learns_and_decays_at_its_share_of_the_rate():
    cfg = make_cfg("SOLVER.LAYER_DECAY 0.25 SOLVER.WEIGHT_DECAY 0.3 SOLVER.BETAS [0.5,0.8]")
    lrs, scales = [0.1, 0.2, 0.05], {"matrix": 0.25, "vector": 1.0}
    expected = by_hand_adamw(lrs, betas=(0.5, 0.8), weight_decay=0.3, scales=scales)
    assert_same(trained(cfg, lrs=lrs), expected)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_every_layer_of_hiera_moves_by_its_share_of_the_learning_rate(layer_decay):
    cfg = make_cfg(
        f"SOLVER.LAYER_DECAY {layer_decay} SOLVER.WEIGHT_DECAY 0.0",
        "SOLVER.OPTIMIZING_METHOD sgd SOLVER.MOMENTUM 0.0",
    )
    model = hiera_micro_8x64()  # 5 blocks between embedding and head
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = build_optimizer(cfg, model)
    for lr in (0.25, 0.5):  # the second rate must not be scaled on top of the first
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        set_lr(optimizer, lr)
        optimizer.step()
    steps_below_head = {"patch_embed": 6, "pos_embed_spatial": 6, "norm": 0, "head": 0}
    for name, value in model.named_parameters():
        first, second = name.split(".")[:2] if "." in name else (name, "")
        below = 5 - int(second) if first == "blocks" else steps_below_head.get(first, 6)
        moved = (before[name] - value).mean().item()
        assert moved == pytest.approx(0.75 * layer_decay**below, rel=1e-4), name


@pytest.mark.parametrize("method", ["adamw", "sgd"])
@pytest.mark.parametrize(
    ("keys", "learning"),
    [
        ("MODEL.LINEAR_PROBE True", ("norm.", "head.")),
        ("MODEL.FREEZE_LAYERS 5", ("blocks.4.", "norm.", "head.")),
        ("MODEL.FREEZE_LAYERS 1", ("blocks.", "norm.", "head.")),
    ],
)
def test_the_optimizer_leaves_out_what_is_frozen(keys, learning, method):
    cfg = make_cfg(keys, f"SOLVER.OPTIMIZING_METHOD {method}")
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    names = [name for group in optimizer.param_groups for name in group["names"]]
    expected = {n for n, _ in model.named_parameters() if n.startswith(learning)}
    assert set(names) == expected
    assert len(names) == len(expected) > 3
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for n, p in model.named_parameters() if n in expected}


def test_a_model_without_layers_learns_at_one_rate():
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    cfg = make_cfg("SOLVER.LAYER_DECAY 0.5 SOLVER.OPTIMIZING_METHOD sgd SOLVER.WEIGHT_DECAY 0.0")
    optimizer = build_optimizer(cfg, model)
    model.weight.grad = torch.ones(2, 2)
    set_lr(optimizer, 0.5)
    optimizer.step()
    # The first step with Nesterov momentum 0.9 is 1.9 gradients.
    assert torch.allclose(before - model.weight, torch.full((2, 2), 0.95))


SCHEDULE = (
    "SOLVER.BASE_LR 0.4 SOLVER.COSINE_END_LR 0.04 SOLVER.WARMUP_START_LR 0.08 "
    "SOLVER.WARMUP_EPOCHS 2 SOLVER.MAX_EPOCH 10 TRAIN.BATCH_SIZE 8 SOLVER.ACCUM_STEPS 4 "
    "SOLVER.BASE_BATCH_SIZE 64"
)


def test_the_learning_rate_follows_the_configured_curve():
    lr_at = build_lr_schedule(make_cfg(SCHEDULE))
    half = 32 / 64  # a step sees 8 x 4 clips, the rates are meant for 64
    expected = {
        0: 0.08,
        0.5: 0.16,
        2: 0.4,
        4: 0.04 + 0.36 * (1 + math.cos(math.pi / 4)) / 2,
        6: 0.22,
        9.5: 0.04 + 0.36 * (1 + math.cos(math.pi * 7.5 / 8)) / 2,
        10: 0.04,
    }
    for epoch, lr in expected.items():
        assert lr_at(epoch) == pytest.approx(half * lr, rel=1e-12), epoch


@pytest.mark.parametrize(
    ("keys", "factor"),
    [
        ("TRAIN.BATCH_SIZE 8 SOLVER.ACCUM_STEPS 1 SOLVER.BASE_BATCH_SIZE 64", 1 / 8),
        ("TRAIN.BATCH_SIZE 8 SOLVER.ACCUM_STEPS 16 SOLVER.BASE_BATCH_SIZE 64", 2),
        ("TRAIN.BATCH_SIZE 16 SOLVER.ACCUM_STEPS 1 SOLVER.BASE_BATCH_SIZE 16", 1),
        ("TRAIN.BATCH_SIZE 8 SOLVER.ACCUM_STEPS 4 SOLVER.BASE_BATCH_SIZE 0", 1),
        ("TRAIN.BATCH_SIZE 8 SOLVER.ACCUM_STEPS 4 AUG.NUM_SAMPLE 4", 2),
        ("TRAIN.BATCH_SIZE 8 SOLVER.ACCUM_STEPS 4 AUG.NUM_SAMPLE 4 AUG.ENABLE False", 1 / 2),
    ],
)
def test_all_rates_scale_with_the_clips_of_a_step(keys, factor):
    lr_at = build_lr_schedule(make_cfg(SCHEDULE, keys))
    for epoch, lr in ((0, 0.08), (2, 0.4), (6, 0.22), (10, 0.04)):
        assert lr_at(epoch) == pytest.approx(factor * lr, rel=1e-12)


def test_the_effective_batch_is_batch_times_accumulation_times_repeated_views():
    assert effective_batch(make_cfg("TRAIN.BATCH_SIZE 6 SOLVER.ACCUM_STEPS 5")) == 30
    assert effective_batch(make_cfg("TRAIN.BATCH_SIZE 6 AUG.NUM_SAMPLE 4")) == 24
    assert effective_batch(make_cfg("TRAIN.BATCH_SIZE 6 AUG.NUM_SAMPLE 4 AUG.ENABLE False")) == 6


@pytest.mark.parametrize(
    ("keys", "num_videos", "clips"),
    [
        ("TRAIN.BATCH_SIZE 512", 8, 8),
        ("TRAIN.BATCH_SIZE 512 AUG.NUM_SAMPLE 2", 8, 16),
        ("TRAIN.BATCH_SIZE 512 SOLVER.ACCUM_STEPS 4", 8, 8),
        ("TRAIN.BATCH_SIZE 2 SOLVER.ACCUM_STEPS 64", 9, 8),  # the ninth is left out
        ("TRAIN.BATCH_SIZE 2 SOLVER.ACCUM_STEPS 4", 9, 8),
        ("TRAIN.BATCH_SIZE 2 SOLVER.ACCUM_STEPS 3", 9, 6),
    ],
)
def test_a_step_and_its_rate_hold_no_more_clips_than_an_epoch_has(keys, num_videos, clips):
    cfg = make_cfg(SCHEDULE, keys)
    assert effective_batch(cfg, num_videos) == clips
    lr_at = build_lr_schedule(cfg, num_videos)
    for epoch, lr in ((0, 0.08), (2, 0.4), (6, 0.22), (10, 0.04)):
        assert lr_at(epoch) == pytest.approx(clips / 64 * lr, rel=1e-12)


def test_a_step_of_fewer_iterations_learns_at_their_share_of_the_rate():
    lr_at = build_lr_schedule(make_cfg(SCHEDULE), 100)
    assert lr_at(2, 1) == pytest.approx(0.4 * 8 / 64, rel=1e-12)
    assert lr_at(2, 4) == lr_at(2)
    absolute = build_lr_schedule(make_cfg(SCHEDULE, "SOLVER.BASE_BATCH_SIZE 0"), 100)
    assert absolute(2, 1) == absolute(2, 4) == 0.4
