"""Losses and gradients that are not finite, or jump: skipped, named, and not for ever."""

import math
import os
import re
from pathlib import Path

import pytest
import simplejson
import torch
from torch.nn.modules.module import register_module_forward_hook

from hiera_video.checkpoints.run_folder import checkpoint_path
from hiera_video.data.loader import Batch
from hiera_video.data.records import VideoRecord
from hiera_video.engine.guards import MIN_LOSSES, StepGuard
from hiera_video.engine.launch import launch
from hiera_video.models.hiera import Hiera
from hiera_video.utils.errors import UserError

RECORDS = [VideoRecord(f"/videos/{index}.mp4", 0, index) for index in range(20)]


def batch_of(*video_indices):
    indices_B = torch.tensor(video_indices)
    return Batch(torch.zeros(len(indices_B), 1), indices_B, indices_B, ())


def log_of(cfg):
    return (Path(cfg.OUTPUT_DIR) / "stdout.log").read_text()


@pytest.fixture
def spoil():
    """Return a function that has the training forward passes of some numbers spoilt, from 1 on."""
    handles = []

    def start(numbers, how):
        count = 0

        def hook(module, _, output):
            nonlocal count
            if not (isinstance(module, Hiera) and module.training):
                return None
            count += 1
            return how(output) if count in numbers else None

        handles.append(register_module_forward_hook(hook))

    yield start
    for handle in handles:
        handle.remove()


def nan_loss(logits_BK):
    return logits_BK * math.nan


class FiniteLossOnly(torch.autograd.Function):
    """Passes logits on, and infinity back."""

    @staticmethod
    def forward(ctx, logits_BK):
        return logits_BK.clone()

    @staticmethod
    def backward(ctx, gradient_BK):
        return gradient_BK * math.inf


PLAIN = "SOLVER.MAX_EPOCH 1 TRAIN.BATCH_SIZE 2 TEST.ENABLE False TRAIN.CHECKPOINT_ITERS 1"


def states_of(cfg, iterations):
    contents = [
        torch.load(checkpoint_path(cfg.OUTPUT_DIR, *i), weights_only=True) for i in iterations
    ]
    return [
        {"weights": content["model_state"], "moments": content["optimizer_state"]["state"]}
        for content in contents
    ]


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (nan_loss, "the loss became nan in epoch 1/1, iteration 8"),
        (
            FiniteLossOnly.apply,
            r"the norm of the gradient became (nan|inf) in epoch 1/1, iteration 8",
        ),
    ],
    ids=["loss", "gradient"],
)
def test_a_bad_step_changes_nothing_and_names_its_videos(small_cfg, spoil, how, words):
    cfg = small_cfg(PLAIN)
    spoil({8}, how)  # the last one
    launch(cfg)
    log = log_of(cfg)
    assert same(*states_of(cfg, [(0, 7), (1,)]))
    (line,) = [line for line in log.splitlines() if "the step is skipped" in line]
    assert re.search(words, line)
    assert "the 1. in a row" in line
    assert len(set(re.findall(r"[^ ,]+\.mp4", line))) == 2
    assert all(os.path.exists(path) for path in re.findall(r"[^ ,]+\.mp4", line))
    stats = simplejson.loads(re.search(r'\{"_type": "train_epoch".*', log).group())
    assert stats["skipped_steps"] == 1
    assert stats["loss"] > 0


def test_one_bad_iteration_spoils_its_step_and_no_other(small_cfg, spoil):
    cfg = small_cfg(PLAIN, "SOLVER.ACCUM_STEPS 2 TRAIN.KEEP_CHECKPOINTS 0")
    spoil({5}, nan_loss)
    launch(cfg)
    log = log_of(cfg)
    assert log.count("the step is skipped") == 1
    (line,) = [line for line in log.splitlines() if "the step is skipped" in line]
    assert "iteration 5:" in line
    assert len(set(re.findall(r"[^ ,]+\.mp4", line))) == 4
    final = torch.load(checkpoint_path(cfg.OUTPUT_DIR, 1), weights_only=True)
    assert all(value.isfinite().all() for value in final["model_state"].values())
    steps = {int(state["step"]) for state in final["optimizer_state"]["state"].values()}
    assert steps == {3}


def test_too_many_in_a_row_stop_the_run_also_when_it_was_resumed_between_them(small_cfg, spoil):
    cfg = small_cfg(PLAIN, "TRAIN.MAX_BAD_STEPS 3 SOLVER.MAX_EPOCH 3")
    spoil({2, 3, 5, 6, 7}, nan_loss)
    with pytest.raises(UserError, match=r"nan in epoch 1/3, iteration 7, and TRAIN.MAX_BAD_STEPS"):
        launch(cfg)
    log = log_of(cfg)
    assert log.count("the step is skipped") == 5
    assert "the 3. in a row" in log
    assert f"{Path(checkpoint_path('', 0, 6)).name}" in os.listdir(f"{cfg.OUTPUT_DIR}/checkpoints")
    # Resumed after 6: one more is the third again.
    spoil({1}, nan_loss)
    with pytest.raises(UserError, match=r"iteration 7, and TRAIN.MAX_BAD_STEPS"):
        launch(cfg)
    assert "resumed after iteration 6 of epoch 1" in log_of(cfg)


def test_a_loss_far_above_those_before_is_named_with_its_videos():
    said = []
    guard = StepGuard(5, RECORDS, said.append)
    generator = torch.Generator().manual_seed(0)
    for loss in (2 + 0.1 * torch.randn(MIN_LOSSES, generator=generator)).tolist():
        guard.add(loss, batch_of(1, 1, 2), "epoch 1, iteration 1")
        assert not guard.skips(1.0, "epoch 1, iteration 1")
    guard.add(2.4, batch_of(3), "epoch 1, iteration 21")
    assert not said
    guard.add(4.0, batch_of(7, 7, 9), "epoch 1, iteration 22")
    assert not guard.skips(1.0, "epoch 1, iteration 22")
    (line,) = said
    assert line.startswith("the loss jumped to 4 in epoch 1, iteration 22; the 21 before")
    assert line.endswith("its videos: /videos/7.mp4, /videos/9.mp4")
    guard.skips(1.0, "epoch 1, iteration 23")
    assert len(said) == 1


def test_the_first_losses_of_a_run_may_jump():
    said = []
    guard = StepGuard(5, RECORDS, said.append)
    for loss in (1.0, 1.0, 9.0):
        guard.add(loss, batch_of(0), "")
    assert not guard.skips(1.0, "")
    assert not said


def test_a_good_step_ends_the_row():
    guard = StepGuard(2, RECORDS, [].append)
    for loss in (math.nan, 1.0, math.inf, 1.0):
        guard.add(loss, batch_of(0), "here")
        assert guard.skips(1.0, "here") == (not math.isfinite(loss))
    assert guard.num_skipped == 2
    assert guard.skips(math.inf, "here")
    with pytest.raises(UserError, match="the norm of the gradient became nan in there"):
        guard.skips(math.nan, "there")
