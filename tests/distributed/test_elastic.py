"""A worker process is killed under `torchrun --max-restarts`: the run goes on without it."""

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.checkpoints.run_folder import last_checkpoint

# Everything random is on; a checkpoint after every iteration.
RUN = (
    "SOLVER.MAX_EPOCH 3 TRAIN.CHECKPOINT_ITERS 1 MIXUP.ENABLE True "
    "SOLVER.OPTIMIZING_METHOD adamw MODEL.DROP_PATH_RATE 0.3 MODEL.DROPOUT_RATE 0.3 LOG_PERIOD 1"
)


def final_weights(folder):
    path = last_checkpoint(str(folder))
    assert "epoch_00003" in path
    return read_checkpoint(path, key="X")["model_state"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the process by /proc")
@pytest.mark.parametrize(
    ("strategy", "num_processes", "rank"),
    [("ddp", 2, 0), ("ddp", 2, 1), ("ddp", 3, 2), ("fsdp", 2, 1), ("fsdp", 3, 0)],
)
def test_a_killed_process_is_started_again_and_the_run_goes_on(
    torchrun, small_run, tmp_path, strategy, num_processes, rank, start_torchrun, pid_of_rank
):
    words = f"{RUN} DIST.STRATEGY {strategy} TRAIN.BATCH_SIZE {2 * num_processes}"
    ended = torchrun(num_processes, *small_run(words, name="whole"))
    assert ended.status == 0, ended.err
    options = ("--max-restarts", "1")
    running = start_torchrun(num_processes, *small_run(words, name="killed"), options=options)
    log = tmp_path / "killed" / "stdout.log"
    end = time.monotonic() + 60
    while not (log.exists() and "epoch 2/3 iteration 2/" in log.read_text()):
        assert time.monotonic() < end
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.01)
    os.kill(pid_of_rank(rank, running.pid), signal.SIGKILL)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    said = log.read_text()
    assert said.count("resumed after") == 1
    # By fsdp they are written while training goes on, and what was not finished is lost.
    epochs = {"ddp": "2", "fsdp": "[12]"}[strategy]
    assert re.search(f"resumed after (iteration|epoch {epochs})", said)
    whole, killed = final_weights(tmp_path / "whole"), final_weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


# The run itself, but that rank 1 has an error in its sixth step, once.
FAILS_ONCE = """
import sys
from pathlib import Path
sys.path.insert(0, "tools")
from torch.optim.optimizer import register_optimizer_step_pre_hook
import run_net
from hiera_video.utils import cli, dist

mark, steps = Path({mark!r}), []

def fail(*_):
    steps.append(1)
    if dist.rank() == 1 and len(steps) == 6 and not mark.exists():
        mark.touch()
        raise ValueError("a fault of this machine")

register_optimizer_step_pre_hook(fail)
cli.run(run_net.main)
"""


@pytest.mark.slow
def test_a_process_that_fails_on_one_machine_starts_all_anew_on_both(
    small_run, start_torchrun, script, tmp_path
):
    # Each machine's agent counts the failures of its own processes; the store outlives them.
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    options = ("--nnodes", "2", "--rdzv-id", "two", "--rdzv-endpoint", endpoint)
    options += ("--max-restarts", "1")
    words = [
        script(FAILS_ONCE.format(mark=str(tmp_path / "mark"))),
        *small_run(f"{RUN} TRAIN.BATCH_SIZE 2 TRAIN.AUTO_RESUME False")[1:],
    ]
    agents = [start_torchrun(1, *words, options=options) for _ in range(2)]
    ends = [agent.communicate(timeout=180) for agent in agents]
    errors = "".join(err for _, err in ends)
    assert [agent.returncode for agent in agents] == [0, 0], errors
    assert (tmp_path / "output" / "stdout.log").read_text().count("resumed after iteration") == 1
    assert "a fault of this machine" in errors
    # Nobody looked for those of before the restart, and nobody failed a second time.
    assert "failed to connect" not in errors
    assert errors.count("exitcode: 1") == 1
