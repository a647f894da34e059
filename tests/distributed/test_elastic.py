"""A worker process is killed under `torchrun --max-restarts`: the run goes on without it."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

# Everything random is on; a checkpoint after every iteration.
RUN = (
    "SOLVER.MAX_EPOCH 3 TRAIN.BATCH_SIZE 4 TRAIN.CHECKPOINT_ITERS 1 MIXUP.ENABLE True "
    "SOLVER.OPTIMIZING_METHOD adamw MODEL.DROP_PATH_RATE 0.3 MODEL.DROPOUT_RATE 0.3 LOG_PERIOD 1"
)


def final_weights(folder):
    path = folder / "checkpoints" / "checkpoint_epoch_00003.pyth"
    return torch.load(path, weights_only=True)["model_state"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the process by /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_started_again_and_the_run_goes_on(
    torchrun, small_run, tmp_path, rank, start_torchrun, pid_of_rank
):
    ended = torchrun(2, *small_run(RUN, name="whole"))
    assert ended.status == 0, ended.err
    running = start_torchrun(2, *small_run(RUN, name="killed"), options=("--max-restarts", "1"))
    log = tmp_path / "killed" / "stdout.log"
    end = time.monotonic() + 60
    while not (log.exists() and "epoch 2/3 iteration 2/4" in log.read_text()):
        assert time.monotonic() < end
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.01)
    os.kill(pid_of_rank(rank, running.pid), signal.SIGKILL)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    said = log.read_text()
    assert said.count("resumed after") == 1
    assert "resumed after iteration" in said or "resumed after epoch 2" in said
    whole, killed = final_weights(tmp_path / "whole"), final_weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
