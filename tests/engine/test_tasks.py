"""What a run computes, watched from outside: the forward passes of its layers are recorded.

Shape suffixes: B views, K classes, CTHW a clip.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import simplejson
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from hiera_video.checkpoints.run_folder import checkpoint_path
from hiera_video.data.build import build_loader, read_records
from hiera_video.data.loader import Batch
from hiera_video.data.transforms.mixup import Mixup
from hiera_video.engine.launch import launch
from hiera_video.engine.tasks import Classify
from hiera_video.models.build import build_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.parts.layers import DropPath


@dataclass(frozen=True)
class Call:
    """One forward pass of one layer; `learns`: with gradients, so not in an evaluation."""

    module: nn.Module
    input: torch.Tensor
    output: torch.Tensor
    learns: bool


@pytest.fixture
def watch():
    """Return a function that records every forward pass of a kind of layer from then on."""
    handles = []

    def start(kind):
        recorded = []

        def record(module, inputs, output):
            if isinstance(module, kind):
                learns = torch.is_grad_enabled()
                recorded.append(Call(module, inputs[0].detach(), output.detach(), learns))

        handles.append(register_module_forward_hook(record))
        return recorded

    yield start
    for handle in handles:
        handle.remove()


def learning(calls):
    return [call for call in calls if call.learns]


def evaluating(calls):
    return [call for call in calls if not call.learns]


def json_stats(cfg, kind):
    with open(f"{cfg.OUTPUT_DIR}/stdout.log", encoding="utf-8") as log:
        lines = [line.split("json_stats: ")[1] for line in log if "json_stats: " in line]
    return [stats for stats in map(simplejson.loads, lines) if stats["_type"] == kind]


def plain_batches(cfg):
    """Return the training batches of all epochs, as they are before any mixing."""
    loader = build_loader(cfg, "train", read_records(cfg, "train"))
    epochs = range(cfg.SOLVER.MAX_EPOCH)
    return [batch.to(torch.device("cpu")) for epoch in epochs for batch in loader.batches(epoch)]


def soft_loss(logits_BK, targets_BK, *, smoothing):
    """Return the cross-entropy of smoothed probabilities, as it stands in the books."""
    num_classes = targets_BK.shape[1]
    targets_BK = (1 - smoothing) * targets_BK + smoothing / num_classes
    return -(targets_BK * logits_BK.double().log_softmax(-1)).sum(-1).mean().item()


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
def test_the_loss_of_a_run_is_the_cross_entropy_of_smoothed_labels(small_cfg, watch, smoothing):
    calls = watch(Hiera)
    cfg = small_cfg(f"SOLVER.LABEL_SMOOTHING {smoothing} SOLVER.MAX_EPOCH 1 TEST.ENABLE False")
    launch(cfg)
    passes = learning(calls)
    losses = [stats["loss"] for stats in json_stats(cfg, "train_iter")]
    batches = plain_batches(cfg)
    assert len(passes) == len(losses) == len(batches) == 2
    for call, loss, batch in zip(passes, losses, batches, strict=True):
        assert torch.equal(call.input, batch.clips_BCTHW)
        one_hot_BK = torch.eye(8, dtype=torch.float64)[batch.labels_B]
        expected = soft_loss(call.output, one_hot_BK, smoothing=smoothing)
        assert loss == pytest.approx(expected, rel=1e-5)


def own_share(mixed_BCTHW, clips_BCTHW):
    """Return (kind, share of the own clip) of a batch that was mixed with itself, by its pixels."""
    partners_BCTHW = clips_BCTHW.flip(0)
    own_HW = (mixed_BCTHW == clips_BCTHW).flatten(0, 2).all(0)
    if own_HW.all():
        return "none", 1.0
    theirs_HW = (mixed_BCTHW == partners_BCTHW).flatten(0, 2).all(0)
    if (own_HW | theirs_HW).all():
        return "box", own_HW.double().mean().item()
    difference = (clips_BCTHW - partners_BCTHW).double()
    share = ((mixed_BCTHW - partners_BCTHW).double() * difference).sum() / (difference**2).sum()
    blend_BCTHW = share * clips_BCTHW + (1 - share) * partners_BCTHW
    assert (mixed_BCTHW - blend_BCTHW).abs().max() < 1e-4
    return "blend", share.item()


def mixed_run(small_cfg, watch, *overrides):
    """Run and return the kinds of mixing that its batches saw; their losses are checked."""
    calls = watch(Hiera)
    cfg = small_cfg(
        "MIXUP.ENABLE True SOLVER.LABEL_SMOOTHING 0.2 TRAIN.BATCH_SIZE 4 SOLVER.MAX_EPOCH 4",
        "TRAIN.EVAL_PERIOD 4 TRAIN.CHECKPOINT_PERIOD 4 TEST.ENABLE False",
        *overrides,
    )
    launch(cfg)
    passes = learning(calls)
    losses = [stats["loss"] for stats in json_stats(cfg, "train_iter")]
    kinds, shares = [], []
    for call, loss, batch in zip(passes, losses, plain_batches(cfg), strict=True):
        kind, share = own_share(call.input, batch.clips_BCTHW)
        one_hot_BK = torch.eye(8, dtype=torch.float64)[batch.labels_B]
        targets_BK = share * one_hot_BK + (1 - share) * one_hot_BK.flip(0)
        expected = soft_loss(call.output, targets_BK, smoothing=0.2)
        assert loss == pytest.approx(expected, rel=1e-4)
        kinds.append(kind)
        shares.append(share)
    assert len(kinds) == 16
    assert len(set(shares)) >= (3 if set(kinds) != {"none"} else 1)
    return kinds


def test_a_run_mixes_clips_and_labels_by_both_kinds(small_cfg, watch):
    kinds = mixed_run(small_cfg, watch, "MIXUP.PROB 1.0 MIXUP.SWITCH_PROB 0.5")
    assert kinds.count("blend") >= 3
    assert kinds.count("box") >= 3


@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        ("MIXUP.CUTMIX_ALPHA 0.0", {"blend"}),
        ("MIXUP.ALPHA 0.0", {"box", "none"}),  # a box may come out empty
        ("MIXUP.PROB 0.0", {"none"}),
    ],
)
def test_a_run_mixes_by_what_is_configured_alone(small_cfg, watch, keys, allowed):
    kinds = mixed_run(small_cfg, watch, keys)
    assert set(kinds) <= allowed
    assert kinds.count("none") in (range(4) if keys != "MIXUP.PROB 0.0" else (16,))


def test_evaluation_sees_clips_unmixed(small_cfg, watch):
    calls = watch(Hiera)
    cfg = small_cfg("MIXUP.ENABLE True SOLVER.MAX_EPOCH 1 TEST.ENABLE False")
    launch(cfg)
    (call,) = evaluating(calls)
    (batch,) = build_loader(cfg, "val", read_records(cfg, "val")).batches()
    assert torch.equal(call.input, batch.to(torch.device("cpu")).clips_BCTHW)


@pytest.mark.parametrize("mixed", [True, False])
def test_linear_layers_compute_in_the_configured_precision(small_cfg, watch, mixed):
    linear, passes = watch(nn.Linear), watch(Hiera)
    launch(small_cfg(f"TRAIN.MIXED_PRECISION {mixed} SOLVER.MAX_EPOCH 1"))
    wanted = torch.bfloat16 if mixed else torch.float32
    for choose in (learning, evaluating):
        assert {call.output.dtype for call in choose(linear)} == {wanted}
        # All of them: four in each of 5 blocks, one more at each of 3 changes of width, the head.
        assert len(choose(linear)) == 24 * len(choose(passes))
    # Both evaluations ran: one view each of 8 videos, 2 x 3 of them in the test.
    assert sum(len(call.input) for call in evaluating(passes)) == 8 + 8 * 6


def skips(call):
    """Return, for each clip, whether a DropPath left it as it was."""
    return (call.output == call.input).flatten(1).all(1)


RANDOM = "MODEL.DROPOUT_RATE 0.5 MODEL.DROP_PATH_RATE 0.5"


def test_dropout_is_on_in_every_iteration_and_off_in_every_evaluation(small_cfg, watch):
    calls, paths = watch(nn.Dropout), watch(DropPath)
    launch(small_cfg(RANDOM, "SOLVER.MAX_EPOCH 3"))  # which validates after each epoch
    for epoch in range(3):
        of_epoch = learning(calls)[2 * epoch :][:2]
        for call in of_epoch:
            assert (call.output == 0).double().mean().item() == pytest.approx(0.5, abs=0.08)
        at_a_rate = [call for call in learning(paths) if call.module.drop_prob]
        skipped = [skips(call) for call in at_a_rate[16 * epoch :][:16]]
        assert len(skipped) == 16  # 2 iterations x 4 blocks with a rate x 2 in each
        assert 0.1 < torch.cat(skipped).double().mean().item() < 0.6
    assert len(learning(calls)) == 6
    assert len(evaluating(calls)) >= 4
    for call in evaluating(calls):
        assert torch.equal(call.output, call.input)
    assert evaluating(paths) == []


def test_validation_has_the_logits_of_the_checkpoint_without_dropout(small_cfg, watch):
    calls = watch(Hiera)
    cfg = small_cfg(RANDOM, "TEST.ENABLE False")
    launch(cfg)
    validations = evaluating(calls)
    assert len(validations) == 2
    for epoch, call in enumerate(validations, start=1):
        state = torch.load(checkpoint_path(cfg.OUTPUT_DIR, epoch), weights_only=True)
        model = build_model(cfg)
        model.load_state_dict(state["model_state"])
        with torch.no_grad():
            expected = model.eval()(call.input)
        assert torch.allclose(call.output, expected, atol=1e-5)


def test_two_tests_of_the_same_weights_agree(small_cfg):
    launch(small_cfg(RANDOM, "TEST.ENABLE False SOLVER.MAX_EPOCH 1"))
    scores = [launch(small_cfg(RANDOM, "TRAIN.ENABLE False")).scores_NK for _ in range(2)]
    assert np.array_equal(*scores)


def test_the_learning_rate_moves_with_every_iteration(small_cfg):
    cfg = small_cfg(
        "TRAIN.BATCH_SIZE 4 SOLVER.MAX_EPOCH 3 SOLVER.WARMUP_EPOCHS 1 SOLVER.BASE_BATCH_SIZE 8",
        "SOLVER.BASE_LR 2e-3 SOLVER.WARMUP_START_LR 2e-4 SOLVER.COSINE_END_LR 1e-4",
        "SOLVER.LAYER_DECAY 0.5 TEST.ENABLE False",
    )
    launch(cfg)
    # 4 iterations an epoch; steps of 4 videos, at rates that are meant for 8.
    warmup = [(2e-4 + 1.8e-3 * i / 4) / 2 for i in range(4)]
    cosine = [(1e-4 + 1.9e-3 * (1 + math.cos(math.pi * i / 8)) / 2) / 2 for i in range(8)]
    stats = json_stats(cfg, "train_iter")
    assert [entry["lr"] for entry in stats] == pytest.approx(warmup + cosine, rel=1e-9)
    # The optimizer had them too, each layer its share: 7 layers from the embeddings to the head.
    content = torch.load(checkpoint_path(cfg.OUTPUT_DIR, 3), weights_only=True)
    rates = {group["lr"] for group in content["optimizer_state"]["param_groups"]}
    expected = [cosine[-1] * 0.5**below for below in range(7)]
    assert sorted(rates) == pytest.approx(sorted(expected), rel=1e-9)


def distance(one, other):
    """Return how far apart two models' weights are, as one long vector."""
    return torch.cat([(one[name] - other[name]).flatten() for name in one]).norm().item()


@pytest.mark.parametrize("limit", [0.0, 0.01])
def test_one_step_is_as_long_as_the_clipped_gradient(small_cfg, tmp_path, limit):
    torch.manual_seed(0)
    weights = build_model(small_cfg()).state_dict()
    torch.save({"model_state": weights}, tmp_path / "start.pyth")
    cfg = small_cfg(
        "SOLVER.OPTIMIZING_METHOD sgd SOLVER.MOMENTUM 0.0 SOLVER.WEIGHT_DECAY 0.0",
        "TRAIN.BATCH_SIZE 16 SOLVER.BASE_BATCH_SIZE 0 SOLVER.BASE_LR 0.5 SOLVER.WARMUP_EPOCHS 0",
        f"TEST.ENABLE False SOLVER.MAX_EPOCH 1 SOLVER.CLIP_GRAD_L2NORM {limit}",
        f"TRAIN.CHECKPOINT_FILE_PATH {tmp_path / 'start.pyth'}",
    )
    launch(cfg)
    (stats,) = json_stats(cfg, "train_iter")
    after = torch.load(checkpoint_path(cfg.OUTPUT_DIR, 1), weights_only=True)["model_state"]
    assert stats["grad_norm"] > 0.1
    assert distance(after, weights) == pytest.approx(0.5 * (limit or stats["grad_norm"]), rel=1e-3)


def test_the_last_step_of_an_epoch_takes_the_iterations_that_are_left(small_cfg, tmp_path):
    torch.manual_seed(0)
    model = build_model(small_cfg())
    start = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({"model_state": start}, tmp_path / "start.pyth")
    cfg = small_cfg(
        "SOLVER.OPTIMIZING_METHOD sgd SOLVER.MOMENTUM 0.0 SOLVER.WEIGHT_DECAY 0.0 AUG.ENABLE False",
        "SOLVER.BASE_BATCH_SIZE 0 SOLVER.BASE_LR 0.05 SOLVER.COSINE_END_LR 0.05 TEST.ENABLE False",
        "SOLVER.CLIP_GRAD_L2NORM 0.0 SOLVER.WARMUP_EPOCHS 0 TRAIN.BATCH_SIZE 4",
        f"SOLVER.ACCUM_STEPS 3 TRAIN.CHECKPOINT_FILE_PATH {tmp_path / 'start.pyth'}",
    )
    launch(cfg)
    # By hand, over two epochs: a step of the first 12 videos, then one of the other 4.
    sgd = torch.optim.SGD(model.parameters(), lr=0.05)
    batches = plain_batches(cfg)
    assert len(batches) == 8
    for group in (batches[:3], batches[3:4], batches[4:7], batches[7:]):
        clips_BCTHW = torch.cat([batch.clips_BCTHW for batch in group])
        labels_B = torch.cat([batch.labels_B for batch in group])
        sgd.zero_grad()
        nn.functional.cross_entropy(model(clips_BCTHW), labels_B).backward()
        sgd.step()
    after = torch.load(checkpoint_path(cfg.OUTPUT_DIR, 2), weights_only=True)["model_state"]
    assert distance(after, model.state_dict()) < 1e-3 * distance(start, model.state_dict())


def task_of(*, mixup=None, label_smoothing=0.0, seed=0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 8 * 8, 5))
    return Classify(model, label_smoothing=label_smoothing, mixup=mixup, seed=seed)


def random_batch():
    generator = torch.Generator().manual_seed(0)
    clips_BCTHW = torch.randn((6, 3, 2, 8, 8), generator=generator)
    return Batch(clips_BCTHW, torch.tensor([0, 4, 1, 2, 3, 3]), torch.arange(6), ())


def test_a_step_returns_a_loss_whose_gradient_reaches_the_model():
    task, batch = task_of(label_smoothing=0.3), random_batch()
    loss = task.step(batch, epoch=0, iteration=0)
    loss.backward()
    linear = task.model[1]
    with torch.no_grad():
        logits_BK = linear(batch.clips_BCTHW.flatten(1))
        one_hot_BK = torch.eye(5)[batch.labels_B]
        expected = soft_loss(logits_BK, one_hot_BK.double(), smoothing=0.3)
        # The gradient of the mean cross-entropy on the logits: (softmax - target) / B.
        error_BK = (logits_BK.softmax(-1) - (0.7 * one_hot_BK + 0.3 / 5)) / 6
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(linear.bias.grad, error_BK.sum(0), atol=1e-6)


def test_mixing_is_drawn_from_seed_epoch_and_iteration_alone(watch):
    calls = watch(nn.Sequential)
    mixup = Mixup(
        mixup_alpha=1.0,
        cutmix_alpha=1.0,
        prob=1.0,
        switch_prob=0.5,
        label_smoothing=0.0,
        num_classes=5,
    )
    batch = random_batch()
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 2, 3), (0, 3, 2)]
    for seed, epoch, iteration in keys + keys[::-1]:
        task_of(mixup=mixup, seed=seed).step(batch, epoch=epoch, iteration=iteration)
    mixed = [call.input for call in calls]
    first, again = mixed[: len(keys)], mixed[len(keys) :][::-1]
    for one in range(len(keys)):
        assert torch.equal(first[one], again[one])
        assert not any(torch.equal(first[one], first[other]) for other in range(one))
    assert torch.equal(batch.clips_BCTHW, random_batch().clips_BCTHW)
