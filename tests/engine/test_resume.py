"""Runs that die in the middle of an epoch, and end with the weights of one that never did."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from hiera_video.checkpoints.run_folder import Position, checkpoint_path, positions
from hiera_video.config import to_yaml
from hiera_video.engine.launch import launch
from hiera_video.engine.resume import position_now, rng_state, set_rng_state
from hiera_video.models.hiera import Hiera

# Everything random is on: crops, RandAugment, erasing, mixup, drop path, dropout. 8 iterations.
RANDOM = (
    "TRAIN.BATCH_SIZE 2 SOLVER.MAX_EPOCH 3 MIXUP.ENABLE True MODEL.DROP_PATH_RATE 0.3 "
    "MODEL.DROPOUT_RATE 0.3 AUG.AA_TYPE rand-m7-n4-mstd0.5-inc1 AUG.RE_PROB 0.5 TEST.ENABLE False"
)


def content_of(path):
    return torch.load(path, weights_only=True)


def same_state(one, other):
    """Say whether weights and what the optimizer has gathered are the same, bit for bit."""
    moments = [content["optimizer_state"]["state"] for content in (one, other)]
    assert moments[0].keys() == moments[1].keys()
    return all(
        torch.equal(one["model_state"][name], other["model_state"][name])
        for name in one["model_state"]
    ) and all(
        torch.equal(moments[0][number][name], moments[1][number][name])
        for number in moments[0]
        for name in moments[0][number]
    )


def log_of(cfg):
    return (Path(cfg.OUTPUT_DIR) / "stdout.log").read_text()


class PowerCut(Exception):
    pass


def launch_until(cfg, num_steps):
    """Launch and break off before the training forward pass after `num_steps` of them."""
    seen = 0

    def count(module, _):
        nonlocal seen
        if isinstance(module, Hiera) and module.training:
            seen += 1
            if seen > num_steps:
                raise PowerCut

    with register_module_forward_pre_hook(count), pytest.raises(PowerCut):
        launch(cfg)


@pytest.mark.parametrize(
    ("broken_off_after", "every", "accumulated", "resumed_after"),
    [
        (3, 2, 1, "iteration 2 of epoch 1"),
        (13, 1, 1, "iteration 5 of epoch 2"),
        (8, 3, 1, "epoch 1"),
        (14, 4, 2, "iteration 4 of epoch 2"),
        (15, 1, 3, "iteration 6 of epoch 2"),
    ],
)
def test_a_run_broken_off_inside_an_epoch_ends_with_the_same_weights(
    small_cfg, tmp_path, broken_off_after, every, accumulated, resumed_after
):
    keys = f"{RANDOM} SOLVER.ACCUM_STEPS {accumulated}"
    whole = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    broken = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'broken'} TRAIN.CHECKPOINT_ITERS {every}")
    launch_until(broken, broken_off_after)
    launch(broken)
    assert f"resumed after {resumed_after} from" in log_of(broken)
    one, other = (content_of(checkpoint_path(cfg.OUTPUT_DIR, 3)) for cfg in (whole, broken))
    assert same_state(one, other)


def test_kept_frames_change_neither_a_run_nor_its_resume(small_cfg, tmp_path):
    whole = small_cfg(RANDOM, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    keys = f"OUTPUT_DIR {tmp_path / 'broken'} TRAIN.CHECKPOINT_ITERS 2 DATA_LOADER.CACHE 0.01"
    broken = small_cfg(RANDOM, keys)
    launch_until(broken, 3)
    launch(small_cfg(RANDOM, keys, "DATA_LOADER.NUM_WORKERS 2"))
    log = log_of(broken)
    assert "resumed after iteration 2 of epoch 1" in log
    # Of the first epoch it has read the rest alone: 12 of 16 videos.
    assert "DATA_LOADER.CACHE keeps 12 of 24 videos decoded, in 0.00 of 0.01 GiB." in log
    one, other = (content_of(checkpoint_path(cfg.OUTPUT_DIR, 3)) for cfg in (whole, broken))
    assert same_state(one, other)


def test_pretraining_broken_off_inside_an_epoch_ends_with_the_same_weights(small_cfg, tmp_path):
    keys = (
        "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 MIXUP.ENABLE False "
        "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 MODEL.DROP_PATH_RATE 0.3 MASK.RATIO 0.5 "
        "SOLVER.LABEL_SMOOTHING 0.0 MODEL.DROPOUT_RATE 0.0 TEST.ENABLE False TRAIN.BATCH_SIZE 8 "
        "MASK.DECODER_DEPTH 1 MASK.DECODER_EMBED_DIM 32"
    )
    whole = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    first = small_cfg(
        keys, f"OUTPUT_DIR {tmp_path / 'broken'} TRAIN.CHECKPOINT_ITERS 1 TRAIN.KEEP_CHECKPOINTS 1"
    )
    launch(first)
    Path(checkpoint_path(first.OUTPUT_DIR, 2)).unlink()
    assert positions(first.OUTPUT_DIR) == [Position(1, 1)]
    launch(first)
    assert "resumed after iteration 1 of epoch 2" in log_of(first)
    one, other = (content_of(checkpoint_path(cfg.OUTPUT_DIR, 2)) for cfg in (whole, first))
    assert same_state(one, other)


def start_process(cfg, *overrides):
    config = Path(f"{cfg.OUTPUT_DIR}.yaml")
    config.write_text(to_yaml(cfg))
    command = [sys.executable, "tools/run_net.py", "--cfg", str(config), *overrides]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(command, env=os.environ | threads, stdout=subprocess.DEVNULL)


def kill_in_an_epoch(cfg, seed):
    """Start a run in a process of its own and kill it at some moment after a first checkpoint."""
    process = start_process(cfg)
    deadline = time.monotonic() + 60
    while not positions(cfg.OUTPUT_DIR):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 0.7))
    process.kill()
    assert process.wait() == -9


@pytest.mark.parametrize(
    ("workers_before", "workers_after"),
    [
        (0, 2),
        pytest.param(2, 0, marks=pytest.mark.slow),
        pytest.param(2, 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(
    small_cfg, tmp_path, workers_before, workers_after
):
    keys = f"{RANDOM} SOLVER.MAX_EPOCH 6 TRAIN.EVAL_PERIOD 6"
    whole = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    keys += f" OUTPUT_DIR {tmp_path / 'killed'} TRAIN.CHECKPOINT_ITERS 3"
    killed = small_cfg(keys, f"DATA_LOADER.NUM_WORKERS {workers_before}")
    kill_in_an_epoch(killed, seed=workers_before)
    assert positions(killed.OUTPUT_DIR)[0] < Position(6)
    launch(small_cfg(keys, f"DATA_LOADER.NUM_WORKERS {workers_after}"))
    assert "resumed after" in log_of(killed)
    one, other = (content_of(checkpoint_path(cfg.OUTPUT_DIR, 6)) for cfg in (whole, killed))
    assert same_state(one, other)


def test_another_batch_goes_on_at_the_same_share_of_the_epoch_and_says_so(small_cfg):
    cfg = small_cfg(RANDOM, "TRAIN.CHECKPOINT_ITERS 2")
    launch_until(cfg, 13)
    launch(small_cfg(RANDOM, "TRAIN.BATCH_SIZE 4 LOG_PERIOD 1"))
    log = log_of(cfg)
    assert "resumed after iteration 4 of epoch 2 from" in log
    assert "goes on after iteration 2 of epoch 2, and its numbers are not those" in log
    assert "epoch 2/3 iteration 3/4" in log
    assert "epoch 2/3 iteration 2/4" not in log


def test_the_position_in_an_epoch_of_another_length_is_the_beginning_of_a_step():
    def now(iteration, before, after, accum_steps=1):
        return position_now(
            Position(3, iteration),
            saved_iterations=before,
            num_iterations=after,
            accum_steps=accum_steps,
        )

    assert now(7, 10, 10) == Position(3, 7)
    assert now(7, 10, 10, accum_steps=4) == Position(3, 4)
    assert now(5, 10, 40) == Position(3, 20)
    assert now(5, 10, 3) == Position(3, 1)
    assert now(1, 10, 3) == Position(3)


def test_the_state_of_the_generator_brings_back_the_numbers_that_came_after_it():
    state = rng_state(torch.device("cpu"))
    first = torch.rand(5)
    torch.rand(3)
    set_rng_state(state, torch.device("cpu"))
    assert torch.equal(torch.rand(5), first)
