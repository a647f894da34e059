"""Checkpoints that are whole files and hold what no run has written: skipped, as damaged ones."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import save

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.distributed_storage import Writer
from hiera_video.checkpoints.run_folder import checkpoint_path
from hiera_video.engine.checkpoint import read_last, run_state, write_checkpoint
from hiera_video.engine.checkpoint_content import damage_in
from hiera_video.engine.launch import launch


def content_after_a_step(method="adamw", *, iteration=4):
    """Return what a run of two weights would save after a step of epoch 3."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    parameters = dict(model.named_parameters())
    group = {"params": list(parameters.values()), "names": list(parameters), "lr_scale": 1.0}
    if method == "sgd":
        optimizer = torch.optim.SGD([group], lr=0.1, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW([group], lr=0.1, fused=True)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    more = {
        "num_iterations": 8,
        "rng_states": [{"cpu": torch.get_rng_state()}],
        "bad_steps_in_a_row": 0,
        "ema_state": model.state_dict(),
        "ema_steps": 1,
    }
    return run_state(
        epoch=3,
        iteration=iteration,
        model=model,
        optimizer=optimizer,
        config_yaml="TASK: classify",
        class_names=["a", "b"],
        more=more,
    )


@pytest.mark.parametrize("method", ["adamw", "sgd"])
@pytest.mark.parametrize("iteration", [0, 4])
def test_what_a_run_has_written_is_in_order(method, iteration):
    assert damage_in(content_after_a_step(method, iteration=iteration), (3, iteration)) == ""


def test_older_checkpoints_that_hold_less_are_in_order():
    content = content_after_a_step(iteration=0)
    for name in ("num_iterations", "rng_states", "bad_steps_in_a_row", "ema_state", "ema_steps"):
        del content[name]
    content["optimizer_state"]["state"] = {}  # before the first step
    assert damage_in(content, (3, 0)) == ""


def put(*keys):
    """Return a change that puts the last of `keys` at the place that the others lead to."""
    *way, last, value = keys

    def change(content):
        for key in way:
            content = content[key]
        content[last] = value

    return change


def drop(name):
    return lambda content: content.pop(name)


MOMENTS = ("optimizer_state", "state", 0)
GROUP = ("optimizer_state", "param_groups", 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("rng_states"), "random generators"),
        (put("rng_states", []), "random generators"),
        (put("rng_states", 7), "random generators"),
        (put("rng_states", [None]), "random generators"),
        (put("rng_states", [{"cuda": torch.zeros(16, dtype=torch.uint8)}]), "random generators"),
        (put("rng_states", [{"cpu": torch.zeros(7, dtype=torch.uint8)}]), "random generators"),
        (put("rng_states", [{"cpu": torch.zeros(5056)}]), "random generators"),
        (put("iteration", 10**9), "iteration 1000000000, its name says 3 and 4"),
        (put("iteration", "4"), "iteration '4'"),
        (put("iteration", True), "iteration True"),
        (put("epoch", -3), "epoch -3"),
        (put("epoch", 3.0), "epoch 3.0"),
        (drop("epoch"), "epoch None"),
        (put("num_iterations", 0), "iteration 4 of an epoch of 0"),
        (put("num_iterations", 4), "iteration 4 of an epoch of 4"),
        (drop("num_iterations"), "iteration 4 of an epoch of None"),
        (drop("model_state"), "'model_state' is no state dict"),
        (put("model_state", "weight", torch.ones(2, 3).to_sparse()), "'weight' in 'model_state'"),
        (put("model_state", 7, torch.ones(2)), "7 in 'model_state'"),
        (put("model_state", "weight", torch.ones(2, 3, device="meta")), "without data"),
        (put("ema_state", [1]), "'ema_state' is no state dict"),
        (put("ema_state", {}), "'ema_state' has other names"),
        (put("ema_state", "weight", torch.ones(7)), "'weight' in 'ema_state' is"),
        (put("ema_steps", -1), "'ema_steps'"),
        (put("bad_steps_in_a_row", "many"), "'bad_steps_in_a_row'"),
        (put("cfg", 7), "'cfg'"),
        (put("cfg", "["), "'cfg'"),
        (put("cfg", "- 1"), "'cfg'"),
        (put("class_names", "ab"), "'class_names'"),
        (put("class_names", [1, 2]), "'class_names'"),
        (drop("optimizer_state"), "no state of an optimizer"),
        (put("optimizer_state", {}), "lacks a part"),
        (put(*GROUP, "names", None), "does not name its weights"),
        (put(*GROUP, "params", [0]), "does not name its weights"),
        (put(*GROUP, "lr_scale", None), "has no scale"),
        (put(*GROUP, "names", ["weight", "other"]), "not there: 'other'"),
        (put("optimizer_state", "state", 7, {}), "more states than weights"),
        (put("optimizer_state", "state", 0, {}), "exp_avg of 'weight'"),
        (put("optimizer_state", "state", 0, [1]), "'weight' in 'optimizer_state' is no state"),
        (put(*MOMENTS, "exp_avg", torch.ones(1)), r"(1,), of a weight that is"),
        (put(*MOMENTS, "exp_avg", torch.ones(3, 2)), r"(3, 2), of a weight that is"),
        (put(*MOMENTS, "exp_avg_sq", torch.ones(2, 3, dtype=torch.int8)), "torch.int8 (2, 3)"),
        (put(*MOMENTS, "exp_avg_sq", torch.ones(2, 3, dtype=torch.cfloat)), "torch.complex64"),
        (put(*MOMENTS, "exp_avg_sq", 0.1), "exp_avg_sq of 'weight' in 'optimizer_state' is no"),
        (put(*MOMENTS, "step", torch.ones(2)), "step of 'weight'"),
        (put(*MOMENTS, "step", torch.tensor(float("nan"))), "step of 'weight'"),
        (put(*MOMENTS, "step", None), "step of 'weight'"),
    ],
)
def test_what_no_run_has_written_is_named(change, words):
    content = content_after_a_step()
    change(content)
    assert words in damage_in(content, (3, 4))


def test_the_momentum_of_sgd_is_looked_at():
    content = content_after_a_step("sgd")
    content["optimizer_state"]["state"][0]["momentum_buffer"] = torch.ones(1)
    assert "momentum of 'weight' in 'optimizer_state' is torch.float32 (1,)" in damage_in(
        content, (3, 4)
    )
    content["optimizer_state"]["state"][0]["momentum_buffer"] = None  # of SGD without momentum
    assert damage_in(content, (3, 4)) == ""


def save_sharded(path, content, change=lambda rest: None):
    tensors, rest = distributed.flatten(content)
    change(rest)
    write_checkpoint(f"{path}/{distributed.PLAIN}", rest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no other processes
        save(tensors, storage_writer=Writer(path))


@pytest.mark.parametrize("ending", [".pyth", ".dcp"])
@pytest.mark.parametrize("method", ["adamw", "sgd"])
def test_a_run_goes_on_from_the_checkpoint_before(small_cfg, method, ending):
    cfg = small_cfg(f"TEST.ENABLE False SOLVER.MAX_EPOCH 3 SOLVER.OPTIMIZING_METHOD {method}")
    launch(cfg)
    file = Path(checkpoint_path(cfg.OUTPUT_DIR, 3))
    content = torch.load(file, weights_only=True)
    moments = content["optimizer_state"]["state"]
    moments[0] = {name: torch.ones(1) for name in moments[0]} | {"step": torch.tensor(1.0)}
    file.unlink()
    path = checkpoint_path(cfg.OUTPUT_DIR, 3, ending=ending)
    if ending == ".dcp":
        save_sharded(path, content)
    else:
        write_checkpoint(path, content)
    launch(cfg)
    log = Path(cfg.OUTPUT_DIR, "stdout.log").read_text()
    assert log.count("warning: skipped a checkpoint: TRAIN.AUTO_RESUME") == 1
    assert "is damaged (" in log
    assert "resumed after epoch 2 from" in log
    assert file.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("iteration", 10**9), "iteration 1000000000, its name says"),
        (put("optimizer_state", None), "NoneType"),
        (put("optimizer_state", "state", {}), "is damaged ("),
    ],
)
def test_the_rest_of_a_sharded_one_is_looked_at(tmp_path, change, words):
    before = checkpoint_path(str(tmp_path), 3, 3, ending=".dcp")
    save_sharded(before, content_after_a_step(iteration=3))
    last = checkpoint_path(str(tmp_path), 3, 4, ending=".dcp")
    save_sharded(last, content_after_a_step(), change)
    said = []
    path, _ = read_last(str(tmp_path), said.append)
    assert path == before
    assert len(said) == 1
    assert words in said[0]
