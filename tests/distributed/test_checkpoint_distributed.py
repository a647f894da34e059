"""Sharded checkpoints: written while training goes on, and what becomes of those that are not."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.checkpoints.run_folder import last_checkpoint, saved

# What is saved stays what it was while training goes on, and comes back.
SAVES = """
import os, sys
from datetime import timedelta
import torch
from torch.distributed import destroy_process_group, init_process_group
from hiera_video.config import load_config
from hiera_video.engine.parallel import data_parallel
from hiera_video.engine.checkpoint import run_state
from hiera_video.checkpoints.run_folder import Position, last_checkpoint, saved
from hiera_video.engine.checkpoint_distributed import ShardedSaves, restore_shares
from hiera_video.engine.ema import WeightAverage
from hiera_video.engine.parallel.fsdp import whole
from hiera_video.models.build import build_model
from hiera_video.solver.build import build_optimizer
from hiera_video.utils import dist
from hiera_video.checkpoints import distributed
from hiera_video.utils.errors import UserError

def build(seed):
    torch.manual_seed(seed)
    small = "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 NUM_GPUS 0".split()
    small += "DIST.STRATEGY fsdp SOLVER.OPTIMIZING_METHOD adamw SOLVER.LAYER_DECAY 0.9".split()
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", small)
    model = build_model(cfg)
    wrapped = data_parallel.wrap(cfg, model, torch.device("cpu"))
    return model, wrapped, build_optimizer(cfg, model), WeightAverage(model, 0.5)

def step(model, wrapped, optimizer, average):
    wrapped(torch.randn(1, 3, 4, 32, 32)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    average.update()

def state(epoch, model, wrapped, optimizer, average):
    more = {"ema_state": model.state_dict() | average.shares(), "ema_steps": average.num_steps}
    more["rng_states"] = [torch.get_rng_state()]
    return run_state(
        epoch=epoch, model=model, optimizer=optimizer, config_yaml="", class_names=["a"], more=more
    )

def flat(content):
    tensors, rest = distributed.flatten(whole(content))
    return {name: value.clone() for name, value in tensors.items()}, rest

def main():
    init_process_group("gloo", timeout=timedelta(seconds=60))
    here = build(0)
    step(*here)
    folder, warnings = sys.argv[1], []
    before = {}
    with ShardedSaves(folder, keep=2, timeout_sec=60, warn=warnings.append) as saves:
        for epoch in (1, 2, 3):
            before[epoch] = flat(state(epoch, *here))
            path = saves.save(Position(epoch), state(epoch, *here))
            for _ in range(2):
                step(*here)  # in place, while it is being written
            saves.check()
        saves.wait()
        if dist.is_main():
            assert [position.epoch for position, _ in saved(folder)] == [3, 2]
        path = saves.save(Position(4), state(4, *here))
        before[4] = flat(state(4, *here))
    assert not warnings
    dist.by_main(lambda: None)  # which removes the older ones
    assert last_checkpoint(folder) == path, path
    for position, path in saved(folder):
        tensors, rest = before[position.epoch]
        found = flat(distributed.read(path, key="X", optimizer=True))
        if dist.is_main():
            torch.testing.assert_close(found[0], tensors, rtol=0, atol=0)
        assert repr(found[1]) == repr(rest)
        without = distributed.read(path, key="X", optimizer=False)
        assert not any(without["optimizer_state"]["state"].values())
    other = build(1)
    model, _, optimizer, average = other
    rest = distributed.read_plain(path, key="X")
    restore_shares(rest, path, model=model, optimizer=optimizer, average=average)
    again = flat(state(rest["epoch"], *other))
    torch.testing.assert_close(again[0], before[rest["epoch"]][0], rtol=0, atol=0)
    destroy_process_group()

main()
"""


ENDINGS = ("0.distcp", "sums.json")


@pytest.mark.parametrize("num_processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_shares_are_saved_while_training_goes_on_and_come_back(
    ranks, script, tmp_path, num_processes
):
    ended = ranks(num_processes, script(SAVES), tmp_path)
    assert ended.status == 0, ended.err
    # Of another number of processes.
    folder = tmp_path / "checkpoints" / "checkpoint_epoch_00004.dcp"
    content = read_checkpoint(str(folder), key="X")
    assert content["epoch"] == 4
    assert content["class_names"] == ["a"]
    files = {path.name for path in folder.iterdir()}
    shards = {f"__{rank}_{end}" for rank in range(num_processes) for end in ENDINGS}
    assert files == {".metadata", "state.pyth", *shards}


# Everything random is on; a checkpoint after every iteration.
RANDOM = (
    "SOLVER.MAX_EPOCH 3 TRAIN.CHECKPOINT_ITERS 1 MIXUP.ENABLE True "
    "SOLVER.OPTIMIZING_METHOD adamw MODEL.DROP_PATH_RATE 0.3 MODEL.DROPOUT_RATE 0.3 LOG_PERIOD 1 "
    "TRAIN.EMA_DECAY 0.9 "
)
FSDP = "DIST.STRATEGY fsdp "


def tensors_of(folder):
    """Return all tensors of the run's last checkpoint."""
    path = last_checkpoint(str(folder))
    assert "epoch_00003" in path
    if path.endswith(".dcp"):
        content = distributed.read(path, key="X", optimizer=True)
    else:
        content = torch.load(path, weights_only=True)
    return distributed.flatten(content)[0]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def wait_for(words, log, process):
    end = time.monotonic() + 120
    while not (log.exists() and words in log.read_text()):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.fixture
def whole_run(torchrun, small_run, tmp_path):
    """Run to the end without a fault; return the tensors of the last checkpoint."""

    def run(num_processes, words):
        ended = torchrun(num_processes, *small_run(words, name="whole"))
        assert ended.status == 0, ended.err
        return tensors_of(tmp_path / "whole")

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_processes", "number"), [(2, signal.SIGTERM), (2, signal.SIGUSR1), (3, signal.SIGUSR1)]
)
def test_a_signal_saves_the_shares_and_the_run_goes_on_bit_for_bit(
    torchrun, small_run, start_torchrun, whole_run, tmp_path, num_processes, number
):
    words = FSDP + RANDOM.replace("CHECKPOINT_ITERS 1", "CHECKPOINT_ITERS 0")
    words += f"TRAIN.BATCH_SIZE {2 * num_processes} "
    whole = whole_run(num_processes, words)
    options = ("--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")
    running = start_torchrun(num_processes, *small_run(words, name="ended"), options=options)
    log = tmp_path / "ended" / "stdout.log"
    wait_for("epoch 2/3 iteration 2/", log, running)
    running.send_signal(number)
    _, err = running.communicate(timeout=120)
    assert running.returncode != 0, err
    assert "saved after" in log.read_text()
    path = last_checkpoint(str(tmp_path / "ended"))
    assert path.endswith(".dcp")
    assert distributed.shapes(path, key="X")
    ended = torchrun(num_processes, *small_run(words, name="ended"))
    assert ended.status == 0, ended.err
    assert "resumed after" in ended.out
    assert same(whole, tensors_of(tmp_path / "ended"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["", FSDP], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_killed_at_any_moment_go_on_with_other_workers_bit_for_bit(
    torchrun, small_run, start_torchrun, pid_of_rank, whole_run, tmp_path, strategy, num_processes
):
    words = f"{strategy}{RANDOM}TRAIN.BATCH_SIZE {2 * num_processes} "
    whole = whole_run(num_processes, words)
    with_workers = small_run(words, "DATA_LOADER.NUM_WORKERS 1", name="killed")
    running = start_torchrun(num_processes, *with_workers)
    log = tmp_path / "killed" / "stdout.log"
    wait_for("epoch 2/3 iteration 1/", log, running)
    time.sleep(0.1)
    for process in [pid_of_rank(rank, running.pid) for rank in range(num_processes)]:
        with contextlib.suppress(ProcessLookupError):  # torchrun ends the others
            os.kill(process, signal.SIGKILL)
    running.communicate(timeout=120)
    ended = torchrun(num_processes, *small_run(words, name="killed"))
    assert ended.status == 0, ended.err
    assert "resumed after" in ended.out
    assert same(whole, tensors_of(tmp_path / "killed"))


def can_mount():
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="no mount namespace of one's own")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("num_processes", [2, 3])
def test_a_full_disk_ends_the_run_with_one_line_and_leaves_the_older_ones(
    torchrun, small_run, start_torchrun, tmp_path, strategy, num_processes
):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    # Room for one checkpoint with momentum, 9.6 MB, and not for two.
    keys = f"DIST.STRATEGY {strategy} SOLVER.MAX_EPOCH 3 TRAIN.EVAL_PERIOD 9 "
    keys += f"TRAIN.BATCH_SIZE {2 * num_processes} "
    words = small_run(keys, "TRAIN.CHECKPOINT_PERIOD 1")
    words[words.index("OUTPUT_DIR") + 1] = str(disk / "output")
    launcher = (
        f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node {num_processes}"
    )
    line = " ".join([launcher, *map(str, words)])
    script = (
        f"mount -t tmpfs -o size=15m tmpfs {disk} && {line}; status=$?; "
        f"cp -r {disk}/output {kept}; exit $status"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert ended.returncode == 1, ended.stderr
    told = [text for text in ended.stderr.splitlines() if text.startswith("error: ")]
    assert len(told) == 1, ended.stderr
    cause = {"ddp": ".pyth' could not be written (", "fsdp": ".dcp' could not be written (rank "}
    assert f"epoch_00002{cause[strategy]}" in told[0]
    assert "No space left on device" in told[0]
    assert "Older checkpoints are intact" in told[0]
    complete = [
        p.epoch
        for p, path in saved(str(kept))
        if path.endswith(".pyth") or distributed.is_complete(path)
    ]
    assert complete == [1]
    again = small_run(keys)
    again[again.index("OUTPUT_DIR") + 1] = str(kept)
    ended = torchrun(num_processes, *again)
    assert ended.status == 0, ended.err
    assert "resumed after epoch 1" in ended.out
