"""The launchers for Slurm, with a cluster of this machine alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Takes the options away that are srun's own, and runs the rest where it is.
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
shift
exec {python} -m torch.distributed.run --local-addr localhost "$@"
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo localhost; else echo "$@" >> {folder}/requeued; fi
"""


@pytest.fixture
def cluster(tmp_path):
    """Make commands that stand for Slurm's; return the environment of a job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = folder / name
        path.write_text(text.format(python=sys.executable, folder=tmp_path))
        path.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NNODES": "1",
        "PROCESSES_PER_NODE": "2",
    }


@pytest.mark.slow
def test_notice_of_the_end_saves_and_queues_the_job_again(small_run, cluster, tmp_path):
    words = small_run("SOLVER.MAX_EPOCH 500 LOG_PERIOD 1 TRAIN.CHECKPOINT_PERIOD 1000")[1:]

    def job(*more):
        return subprocess.Popen(
            ["bash", "tools/slurm/train.sbatch", *words, *more],
            env=cluster,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    first = job()
    log = tmp_path / "output" / "stdout.log"
    end = time.monotonic() + 60
    while not (log.exists() and "epoch 2/500 iteration" in log.read_text()):
        assert time.monotonic() < end
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGUSR1)
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 0, out
    assert (tmp_path / "requeued").read_text() == f"requeue {cluster['SLURM_JOB_ID']}\n"
    assert "exit status 75" in log.read_text()
    (saved,) = (tmp_path / "output" / "checkpoints").glob("checkpoint_epoch_*")
    epoch = int(saved.stem.split("_")[2])
    second = job("SOLVER.MAX_EPOCH", str(epoch + 1))
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out
    assert "resumed after" in out


@pytest.mark.slow
def test_submitit_runs_the_processes_of_a_run(small_run, tmp_path):
    pytest.importorskip("submitit")
    jobs = f"--cluster local --processes-per-node 2 --folder {tmp_path / 'jobs'}".split()

    def submit(*more):
        return subprocess.run(
            [sys.executable, "tools/submit.py", *jobs, *small_run(*more)[1:]],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            capture_output=True,
            text=True,
            timeout=240,
        )

    ended = submit()
    assert ended.returncode == 0, ended.stderr
    assert "2 processes on 1 machine" in (tmp_path / "output" / "stdout.log").read_text()
    assert Path(tmp_path, "output", "checkpoints", "checkpoint_epoch_00002.pyth").exists()
    refused = submit("TRAIN.BATCH_SIZE 7")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: the job failed; ")
