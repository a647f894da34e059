"""An iteration has one collective between hosts, and one wait of the host for the device."""

import itertools
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import hiera_video
from hiera_video.data.dataset import Failure
from hiera_video.data.loader import Batch
from hiera_video.engine import train
from hiera_video.engine.launch import launch
from hiera_video.engine.parallel.data_parallel import exchange

PACKAGE = str(Path(hiera_video.__file__).parent)
# Methods that bring a tensor's values to the host.
READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")

# The run itself, but that it prints how many collectives there were when each iteration began.
COUNTED = """
import sys
sys.path.insert(0, "tools")
import torch.distributed
import run_net
from hiera_video.engine import tasks
from hiera_video.utils import cli, dist

NAMES = [
    "all_reduce", "all_gather", "all_gather_object", "gather", "gather_object", "broadcast",
    "broadcast_object_list", "reduce", "scatter", "scatter_object_list", "barrier",
    "all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all", "monitored_barrier",
]
count, inside = 0, False

def counted(function):
    def call(*arguments, **settings):
        global count, inside
        count += not inside  # some call others
        inside = True
        try:
            return function(*arguments, **settings)
        finally:
            inside = False
    return call

for name in NAMES:
    setattr(torch.distributed, name, counted(getattr(torch.distributed, name)))

plain = tasks.Classify.step

def step(self, batch, *, epoch, iteration):
    if dist.is_main():
        print(f"at {epoch} {iteration}: {count}", flush=True)
    return plain(self, batch, epoch=epoch, iteration=iteration)

tasks.Classify.step = step
cli.run(run_net.main)
"""


def collectives(out):
    """Return, by epoch, the numbers of collectives from one iteration to the next."""
    counts = {}
    for line in out.splitlines():
        if line.startswith("at "):
            _, epoch, _, count = line.split()
            counts.setdefault(epoch, []).append(int(count))
    return {
        epoch: [after - before for before, after in itertools.pairwise(found)]
        for epoch, found in counts.items()
    }


def test_an_iteration_of_several_processes_has_one_collective(ranks, small_run, script):
    words = small_run("TRAIN.BATCH_SIZE 2 SOLVER.ACCUM_STEPS 2 TRAIN.EMA_DECAY 0.9 LOG_PERIOD 1")
    ended = ranks(2, script(COUNTED), *words[1:])
    assert ended.status == 0, ended.err
    assert collectives(ended.out) == {"0": [1] * 7, "1": [1] * 7}


def test_the_host_waits_for_the_device_once_an_iteration(small_cfg, monkeypatch):
    reads, training = Counter(), []

    def watched(name, plain):
        def call(tensor, *arguments, **settings):
            caller = sys._getframe(1).f_code.co_filename
            # Batches are made on the host, whatever the device.
            if training and not caller.startswith((f"{PACKAGE}/data", f"{PACKAGE}/engine/guards")):
                reads[name, Path(caller).name] += 1
            return plain(tensor, *arguments, **settings)

        return call

    def watched_epoch(run, epoch):
        training.append(epoch)
        try:
            return plain_epoch(run, epoch)
        finally:
            training.clear()

    plain_epoch = train.train_epoch
    monkeypatch.setattr(train, "train_epoch", watched_epoch)
    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, watched(name, getattr(torch.Tensor, name)))
    keys = "SOLVER.ACCUM_STEPS 2 MIXUP.ENABLE False TRAIN.EMA_DECAY 0.9 TEST.ENABLE False"
    launch(small_cfg(f"{keys} TRAIN.BATCH_SIZE 2 SOLVER.MAX_EPOCH 1 DATA_LOADER.NUM_WORKERS 0"))
    assert reads == {("tolist", "train.py"): 8}


def test_one_process_exchanges_with_itself():
    labels = torch.tensor([1, 1, 2, 2])
    failure = Failure("bad.mp4", "bad.mp4: is empty.")
    batch = Batch(torch.zeros(4, 1), labels, labels, (failure,), num_videos=2)
    found = exchange(batch, loss=0.5, stop=True, flags=[1.0, 0.0])
    assert (found.mean_loss, found.stop, found.flags) == (0.5, True, [1.0, 0.0])
    counts = found.counts
    assert (counts.num_videos, counts.num_clips, counts.weight) == (2, 4, 1.0)
    assert counts.failures == (failure,)
    at_end = exchange(None, loss=float("nan"))
    assert at_end.mean_loss != at_end.mean_loss
    assert (at_end.stop, at_end.counts.num_clips) == (False, 0)


@pytest.mark.parametrize("value", [0.1, 1e-30, float("inf"), float("nan")])
def test_the_loss_is_read_as_the_number_it_is(value):
    loss = torch.tensor(value, dtype=torch.float32, requires_grad=True)
    read, norm = train.read_scalars(loss, torch.tensor(2.0))
    assert read == loss.item() or (read != read and value != value)
    assert norm == 2.0
    assert train.read_scalars(loss, None)[1] == 0.0
