"""Start, rendezvous and failure of several processes, as a person sees it."""

import os
import socket
import subprocess
import sys

import pytest


@pytest.mark.parametrize("num_processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_under_torchrun_is_one_run(torchrun, small_run, tmp_path, num_processes):
    words = f"TEST.ENABLE True SOLVER.MAX_EPOCH 1 TRAIN.BATCH_SIZE {2 * num_processes}"
    ended = torchrun(num_processes, *small_run(words))
    assert ended.status == 0, ended.err
    assert "unused" not in ended.err.lower()
    log = (tmp_path / "output" / "stdout.log").read_text()
    assert f"{num_processes} processes on 1 machine" in log
    assert log.count("test: top-1") == ended.out.count("test: top-1") == 1
    assert "8 of 8 videos evaluated" in log


def test_an_error_of_the_user_is_one_line_once(torchrun, small_run, tmp_path):
    ended = torchrun(2, *small_run("SOLVER.MAX_EPOCH 1 TRAIN.BATCH_SIZE 7"))
    assert ended.status == 1
    told = "error: TRAIN.BATCH_SIZE must be divisible by the 2 processes of a machine"
    assert ended.err.count(told) == 1
    assert "Try TRAIN.BATCH_SIZE 8." in ended.err
    assert not (tmp_path / "output").exists()


FAILING = """
import sys, time
from datetime import timedelta
import torch.distributed
from hiera_video.utils import cli, dist

def main():
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    dist.agree(True)
    if dist.rank() == 1:
        time.sleep(0.3)  # the others are in the call that will not return
        raise ValueError("the cause of it all")
    dist.agree(True)

cli.run(main)
"""


@pytest.mark.parametrize("num_processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_first_traceback_is_the_one_shown(torchrun, script, num_processes):
    ended = torchrun(num_processes, script(FAILING))
    assert ended.status == 1
    own, report = ended.err.split("script.py FAILED")
    assert own.count('raise ValueError("the cause of it all")') == 1
    assert "ValueError: the cause of it all" in report
    assert "Connection closed" not in ended.err


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(words, *, rank, world_size, port, local_size=2):
    environment = {"RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "localhost"}
    environment |= {"MASTER_PORT": port, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": local_size}
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_rank_that_does_not_come_is_named(small_run, port):
    words = small_run("DIST.TIMEOUT_SEC 4")
    here = [start(words, rank=rank, world_size=4, port=port) for rank in (0, 2)]
    errors = [process.communicate(timeout=60)[1] for process in here]
    assert [process.returncode for process in here] == [1, 1]
    assert "Traceback" not in "".join(errors)
    told = "".join(errors)
    assert "DIST.TIMEOUT_SEC must be enough for all 4 processes to start, got 4: 2 did not" in told
    assert "rank 1 (process 1 of machine 0), 3 (process 1 of machine 1)." in told


@pytest.mark.slow
def test_a_machine_that_does_not_answer_is_named(small_run, port):
    process = start(small_run("DIST.TIMEOUT_SEC 2"), rank=1, world_size=2, port=port)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: MASTER_ADDR:MASTER_PORT must be where rank 0" in error
    assert f"'localhost:{port}'" in error
    assert "Traceback" not in error


PROCESSES = """
import os, signal, sys, time
from hiera_video.engine.parallel.processes import process_group, run_processes
from hiera_video.utils import cli, dist
from hiera_video.utils.errors import UserError

def work(what):
    with process_group(cpu_only=True, timeout_sec=60):
        dist.agree(True)
        if dist.rank() == 1 and what == "user error":
            raise UserError("KEY must be right.")
        if dist.rank() == 1 and what == "bug":
            raise ValueError("the cause of it all")
        if dist.rank() == 1 and what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if dist.rank() == 1 and what == "status":
            sys.exit(75)
        if what == "stopped" and dist.rank() == 0:
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(30)
        return dist.total([dist.rank() + 1])

if __name__ == "__main__":
    cli.run(lambda: print(run_processes(work, sys.argv[1], num_processes=2)))
"""


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("what", "status", "out", "err"),
    [
        ("nothing", 0, "[3.0]\n", ""),
        ("user error", 1, "", "error: KEY must be right.\n"),
        slow("bug", 1, "", "rank 1 failed:\nTraceback"),
        slow("killed", 1, "", "error: rank 1 was ended by SIGKILL, perhaps for want of memory."),
        slow("status", 75, "", ""),
        slow("stopped", 75, "", ""),
    ],
)
def test_processes_started_by_plain_python_end_as_one(script, what, status, out, err):
    ended = subprocess.run(
        [sys.executable, script(PROCESSES), what], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (status, out), ended.err
    assert ended.stderr.startswith(err)
    assert ended.stderr.count("Traceback") == (what == "bug")
    assert ("the cause of it all" in ended.stderr) == (what == "bug")
