"""The moving average of the weights: its numbers, and its way through checkpoints and tests."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from hiera_video.checkpoints.run_folder import best_path, checkpoint_path
from hiera_video.engine.ema import WeightAverage
from hiera_video.engine.launch import launch
from hiera_video.models.hiera import Hiera

RUN = "TRAIN.BATCH_SIZE 4 TRAIN.EMA_DECAY 0.7 MODEL.DROP_PATH_RATE 0.3 TRAIN.CHECKPOINT_ITERS 1"


def content_of(path):
    return torch.load(path, weights_only=True)


def log_of(cfg):
    return (Path(cfg.OUTPUT_DIR) / "stdout.log").read_text()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_the_average_follows_its_formula():
    model = nn.Linear(3, 2).double()
    weights = [model.weight.detach().numpy().copy()]
    average = WeightAverage(model, 0.35)
    for step in range(6):
        with torch.no_grad():
            model.weight += step + 1.0
        average.update()
        weights.append(model.weight.detach().numpy().copy())
    expected = weights[0]
    for step, now in enumerate(weights[1:]):
        decay = min(0.35, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * now
    with average.in_place():
        np.testing.assert_allclose(model.weight.detach().numpy(), expected, rtol=1e-12)
    assert np.array_equal(model.weight.detach().numpy(), weights[-1])


def test_the_model_gets_its_weights_back_also_after_an_error():
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.5)
    nn.init.constant_(model.weight, 7.0)
    with pytest.raises(KeyError), average.in_place():
        raise KeyError
    assert (model.weight == 7).all()


def test_frozen_parameters_and_buffers_are_the_models_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model[1].running_mean += 3
        model[0].weight += 1
    weight = model[0].weight.clone()
    with average.in_place():
        assert (model[1].running_mean == 3).all()
        assert torch.equal(model[0].weight, weight)


@pytest.fixture
def finished(small_cfg):
    cfg = small_cfg(RUN, "TEST.ENABLE False")
    launch(cfg)
    return cfg


def test_the_average_is_saved_and_is_what_is_validated(small_cfg, finished):
    content = content_of(checkpoint_path(finished.OUTPUT_DIR, 2))
    assert content["ema_steps"] == 8
    plain, averaged = content["model_state"], content["ema_state"]
    assert plain.keys() == averaged.keys()
    assert not same(plain, averaged)
    best = content_of(best_path(finished.OUTPUT_DIR))
    at_best = content_of(checkpoint_path(finished.OUTPUT_DIR, best["epoch"]))
    assert same(best["model_state"], at_best["ema_state"])
    assert "epoch 2/2 validation of the averaged weights" in log_of(finished)


def test_the_average_does_not_change_the_training(small_cfg, finished, tmp_path):
    plain = small_cfg(RUN, f"TEST.ENABLE False TRAIN.EMA_DECAY 0 OUTPUT_DIR {tmp_path / 'plain'}")
    launch(plain)
    one, other = (content_of(checkpoint_path(c.OUTPUT_DIR, 2)) for c in (finished, plain))
    assert same(one["model_state"], other["model_state"])
    assert "ema_state" not in other


def test_a_resumed_run_has_the_average_of_one_never_stopped(finished):
    whole = content_of(checkpoint_path(finished.OUTPUT_DIR, 2))
    Path(checkpoint_path(finished.OUTPUT_DIR, 2)).unlink()
    launch(finished)
    assert "resumed after iteration 3 of epoch 2" in log_of(finished)
    again = content_of(checkpoint_path(finished.OUTPUT_DIR, 2))
    assert same(whole["ema_state"], again["ema_state"])
    assert same(whole["model_state"], again["model_state"])


def test_an_average_that_is_switched_on_later_begins_at_the_weights_of_then(small_cfg):
    launch(small_cfg(RUN, "TEST.ENABLE False TRAIN.EMA_DECAY 0 SOLVER.MAX_EPOCH 1"))
    cfg = small_cfg(RUN, "TEST.ENABLE False SOLVER.BASE_LR 1e-20")
    launch(cfg)
    first = content_of(checkpoint_path(cfg.OUTPUT_DIR, 1))["model_state"]
    average = content_of(checkpoint_path(cfg.OUTPUT_DIR, 2))["ema_state"]
    assert all(torch.allclose(first[name], average[name]) for name in first)


def test_a_test_and_a_fine_tuning_take_the_average_and_say_so(small_cfg, finished, tmp_path):
    path = checkpoint_path(finished.OUTPUT_DIR, 2)
    average = content_of(path)["ema_state"]
    seen = []

    def look(module, _):
        if isinstance(module, Hiera):
            seen.append({n: v.clone() for n, v in module.state_dict().items()})

    with register_module_forward_pre_hook(look):
        launch(small_cfg(f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {path}"))
    assert same(seen[0], average)
    assert "they are the average that the run kept" in log_of(finished)
    tuned = small_cfg(
        f"TRAIN.CHECKPOINT_FILE_PATH {path} TEST.ENABLE False OUTPUT_DIR {tmp_path / 'tuned'}",
        "SOLVER.MAX_EPOCH 1",
    )
    seen.clear()
    with register_module_forward_pre_hook(look):
        launch(tuned)
    assert same(seen[0], average)
    assert "they are the average that the run kept" in log_of(tuned)


def test_a_skipped_step_leaves_the_average(small_cfg):
    cfg = small_cfg(RUN, "SOLVER.MAX_EPOCH 1 TEST.ENABLE False TRAIN.EVAL_PERIOD 2")
    calls = 0

    def spoil(module, inputs):
        nonlocal calls
        calls += isinstance(module, Hiera) and module.training
        if isinstance(module, Hiera) and module.training and calls == 4:
            return (inputs[0] * math.nan,)
        return None

    with register_module_forward_pre_hook(spoil):
        launch(cfg)
    contents = [content_of(checkpoint_path(cfg.OUTPUT_DIR, *p)) for p in ((0, 3), (1,))]
    assert [content["ema_steps"] for content in contents] == [3, 3]
    assert same(contents[0]["ema_state"], contents[1]["ema_state"])
