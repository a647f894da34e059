"""What one process meets, all act on: bad steps, signals, and a death in the middle of an epoch."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from hiera_video.utils.folder_lock import FolderLock

ITERATIONS = "TRAIN.BATCH_SIZE 4 SOLVER.MAX_EPOCH 3 MODEL.DROP_PATH_RATE 0.3 LOG_PERIOD 1 "

# The run itself, but that the forward passes of some numbers give NaN in the last process.
SPOILT = """
import math, sys
sys.path.insert(0, "tools")
from torch.nn.modules.module import register_module_forward_hook
import run_net
from hiera_video.models.hiera import Hiera
from hiera_video.utils import cli, dist

NUMBERS, count = {numbers}, 0

def spoil(module, _, output):
    global count
    if isinstance(module, Hiera) and module.training and dist.rank() == dist.world_size() - 1:
        count += 1
        if count in NUMBERS:
            return output * math.nan

register_module_forward_hook(spoil)
cli.run(run_net.main)
"""


def log_of(folder):
    path = Path(folder) / "stdout.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
def test_a_bad_loss_of_one_process_skips_the_step_of_all(
    torchrun, small_run, script, tmp_path, num_processes
):
    words = small_run(f"TRAIN.BATCH_SIZE {2 * num_processes} TRAIN.MAX_BAD_STEPS 2")
    ended = torchrun(num_processes, script(SPOILT.format(numbers=[2])), *words[1:])
    assert ended.status == 0, ended.err
    (line,) = [line for line in ended.out.splitlines() if "the step is skipped" in line]
    assert "the loss became nan in epoch 1/2, iteration 2" in line
    assert line.count(".mp4") == 2  # those of the process that met it
    path = tmp_path / "output" / "checkpoints" / "checkpoint_epoch_00002.pyth"
    state = torch.load(path, weights_only=True)["model_state"]
    assert all(value.isfinite().all() for value in state.values())

    words = small_run(f"TRAIN.BATCH_SIZE {2 * num_processes} TRAIN.MAX_BAD_STEPS 2", name="stops")
    ended = torchrun(num_processes, script(SPOILT.format(numbers=[1, 2])), *words[1:])
    assert ended.status == 1
    own, _ = ended.err.split("script.py FAILED")  # torchrun's report comes after it
    assert own.count("TRAIN.MAX_BAD_STEPS (2) such steps in a row") == 1


def wait_for_iteration(folder, number, running):
    give_up_at = time.monotonic() + 120
    while len(re.findall(r"iteration \d+/\d+ loss", log_of(folder))) < number:
        assert running.poll() is None
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
def test_a_signal_to_one_process_saves_in_all_and_the_run_goes_on(
    torchrun, start_torchrun, small_run, pid_of_rank, tmp_path, num_processes
):
    keys = f"{ITERATIONS} TRAIN.BATCH_SIZE {2 * num_processes}"
    ended = torchrun(num_processes, *small_run(keys, name="whole"))
    assert ended.status == 0, ended.err
    words = small_run(keys, name="stopped")
    running = start_torchrun(num_processes, *words)
    wait_for_iteration(tmp_path / "stopped", 1, running)
    os.kill(pid_of_rank(num_processes - 1, running.pid), signal.SIGUSR1)
    running.communicate(timeout=120)
    assert running.returncode != 0
    log = log_of(tmp_path / "stopped")
    assert "exit status 75: the same command goes on from there" in log
    ended = torchrun(num_processes, *words)
    assert ended.status == 0, ended.err
    assert "resumed after" in log_of(tmp_path / "stopped")
    assert largest_difference(tmp_path, "whole", "stopped") == 0


# The run itself, but that the last process gets a signal in its first batch of a validation.
SIGNALLED = """
import os, signal, sys
sys.path.insert(0, "tools")
from torch.nn.modules.module import register_module_forward_hook
import run_net
from hiera_video.models.hiera import Hiera
from hiera_video.utils import cli, dist

def notice(module, *_):
    if isinstance(module, Hiera) and not module.training and dist.rank() == dist.world_size() - 1:
        handle.remove()
        os.kill(os.getpid(), signal.SIGTERM)

handle = register_module_forward_hook(notice)
cli.run(run_net.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("num_processes", [2, 3])
def test_a_signal_to_one_process_breaks_a_validation_off_in_all(
    torchrun, small_run, script, tmp_path, strategy, num_processes
):
    words = small_run(
        f"DIST.STRATEGY {strategy} TRAIN.CHECKPOINT_PERIOD 2 TEST.BATCH_SIZE 1 TRAIN.EMA_DECAY 0.9",
        f"TRAIN.BATCH_SIZE {2 * num_processes}",
    )
    torchrun(num_processes, script(SIGNALLED), *words[1:])
    log = log_of(tmp_path / "output")
    assert "saved after epoch 1 in" in log
    assert "validation of the averaged weights" not in log
    ended = torchrun(num_processes, *words)
    assert ended.status == 0, ended.err
    log = log_of(tmp_path / "output")
    assert log.count("epoch 1/2 validation of the averaged weights") == 1
    assert log.count("epoch 2/2 validation of the averaged weights") == 1


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
def test_a_signal_to_one_process_breaks_the_final_test_off_in_all(
    torchrun, small_run, script, tmp_path, num_processes
):
    batch = f"SOLVER.MAX_EPOCH 1 TRAIN.BATCH_SIZE {2 * num_processes} TEST.BATCH_SIZE 6"
    ended = torchrun(num_processes, *small_run(batch))
    assert ended.status == 0, ended.err
    words = small_run(batch, "TEST.ENABLE True")  # nothing is left to train, or to validate
    ended = torchrun(num_processes, script(SIGNALLED), *words[1:])
    assert "exitcode  : 75" in ended.err
    assert "exitcode  : 1 " not in ended.err
    log = log_of(tmp_path / "output")
    assert "stopped: another process was asked to; the test was not finished" in log
    assert "test: top-1" not in log
    ended = torchrun(num_processes, *words)
    assert ended.status == 0, ended.err
    assert "8 of 8 videos evaluated" in log_of(tmp_path / "output")


@pytest.mark.slow
@pytest.mark.parametrize(("num_processes", "workers"), [(2, (0, 2)), (2, (2, 1)), (3, (0, 1))])
def test_processes_killed_in_an_epoch_end_with_the_same_bits(
    torchrun, start_torchrun, small_run, pid_of_rank, tmp_path, num_processes, workers
):
    keys = f"{ITERATIONS} TRAIN.CHECKPOINT_ITERS 1 TRAIN.EMA_DECAY 0.9 MIXUP.ENABLE True"
    # Epochs of four iterations, or of five with two views of a video for each process to mix.
    keys += {2: "", 3: " TRAIN.BATCH_SIZE 3 AUG.NUM_SAMPLE 2"}[num_processes]
    ended = torchrun(num_processes, *small_run(keys, name="whole"))
    assert ended.status == 0, ended.err
    words = small_run(keys, f"DATA_LOADER.NUM_WORKERS {workers[0]}", name="killed")
    running = start_torchrun(num_processes, *words)
    wait_for_iteration(tmp_path / "killed", {2: 6, 3: 7}[num_processes], running)  # in epoch 2 of 3
    os.kill(pid_of_rank(0, running.pid), signal.SIGKILL)
    running.communicate(timeout=120)
    more = small_run(keys, f"DATA_LOADER.NUM_WORKERS {workers[1]}", name="killed")
    ended = torchrun(num_processes, *more)
    assert ended.status == 0, ended.err
    assert re.search(r"resumed after iteration \d of epoch", log_of(tmp_path / "killed"))
    assert largest_difference(tmp_path, "whole", "killed") == 0


def largest_difference(folder, *names):
    one, other = (
        torch.load(
            folder / name / "checkpoints" / "checkpoint_epoch_00003.pyth", weights_only=True
        )["model_state"]
        for name in names
    )
    return max((value - other[name]).abs().max().item() for name, value in one.items())


@pytest.mark.slow
def test_all_processes_of_a_second_training_in_a_folder_are_refused(torchrun, small_run, tmp_path):
    (tmp_path / "output").mkdir()
    lock = FolderLock(str(tmp_path / "output"), print)
    ended = torchrun(2, *small_run())
    lock.release()
    assert ended.status != 0
    assert ended.err.count("error: OUTPUT_DIR must be a folder that no other run trains in") == 1
    assert not (tmp_path / "output" / "stdout.log").exists()
    assert torchrun(2, *small_run()).status == 0  # two processes, one lock
