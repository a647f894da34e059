"""Checkpoints that are broken, too many, the best, or that the disk has no room for."""

import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import simplejson
import torch
from torch.distributed.checkpoint import save
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.distributed_storage import Writer, read_index
from hiera_video.checkpoints.run_folder import (
    Position,
    best_path,
    checkpoint_path,
    last_checkpoint,
    positions,
    remove_old,
    remove_unfinished,
)
from hiera_video.engine.checkpoint import read_last, write_checkpoint
from hiera_video.engine.launch import launch
from hiera_video.engine.validations import Validations
from hiera_video.export.state_dict import export_checkpoint
from hiera_video.utils.errors import UserError

TRAIN_ONLY = "TEST.ENABLE False SOLVER.MAX_EPOCH 3"


def weights_of(path):
    return torch.load(path, weights_only=True)["model_state"]


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def log_of(cfg):
    return (Path(cfg.OUTPUT_DIR) / "stdout.log").read_text()


@pytest.fixture
def finished(small_cfg):
    """A run of three epochs that is done: its config, checkpoints, and final weights."""
    cfg = small_cfg(TRAIN_ONLY)
    launch(cfg)
    return cfg, weights_of(checkpoint_path(cfg.OUTPUT_DIR, 3))


def cut_short(content):
    return content[: len(content) // 2]


def flip_one_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_short, "not a readable checkpoint"),
        (lambda content: b"", "not a readable checkpoint"),
        (lambda content: b"no checkpoint", "not a readable checkpoint"),
        (flip_one_bit, "is damaged"),
    ],
    ids=["half", "empty", "text", "bit"],
)
def test_a_broken_newest_checkpoint_is_skipped_and_the_run_ends_the_same(finished, damage, words):
    cfg, weights = finished
    for epoch in (3, 2):
        path = Path(checkpoint_path(cfg.OUTPUT_DIR, epoch))
        path.write_bytes(damage(path.read_bytes()))
    launch(cfg)
    log = log_of(cfg)
    assert log.count("warning: skipped a checkpoint") == 2
    assert words in log
    assert "resumed after epoch 1" in log
    assert same_weights(weights, weights_of(checkpoint_path(cfg.OUTPUT_DIR, 3)))


@pytest.fixture
def with_shares(finished):
    """The same run with its last two checkpoints as sharded ones, as one process writes them."""
    cfg, weights = finished
    for epoch in (2, 3):
        file = Path(checkpoint_path(cfg.OUTPUT_DIR, epoch))
        tensors, rest = distributed.flatten(torch.load(file, weights_only=True))
        folder = file.with_suffix(distributed.ENDING)
        write_checkpoint(str(folder / distributed.PLAIN), rest)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are no other processes
            save(tensors, storage_writer=Writer(str(folder)))
        file.unlink()
    return cfg, weights


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


class Getter:
    """Pickles as a call of `getattr`, as Python 3.11.0 to 3.11.3 do with members of an enum."""

    def __init__(self, kind, name):
        self.arguments = (kind, name)

    def __reduce__(self):
        return (getattr, self.arguments)


def test_an_index_may_name_a_memory_format_as_python_3_11_0_does_and_nothing_else(tmp_path):
    path = tmp_path / "index"
    for named, words in (
        (Getter(_MEM_FORMAT_ENCODING, "TORCH_CONTIGUOUS_FORMAT"), "ENCODING is no index"),
        (Getter(OrderedDict, "fromkeys"), "fromkeys has no place in the index"),
        (Getter(_MEM_FORMAT_ENCODING, "__class__"), "__class__ has no place in the index"),
    ):
        path.write_bytes(pickle.dumps(named))
        with pytest.raises(pickle.UnpicklingError, match=words):
            read_index(str(path))


def change(name, function):
    def damage(folder):
        path = folder / name
        path.write_bytes(function(path.read_bytes()))

    return damage


def test_a_broken_sharded_checkpoint_is_skipped(with_shares, tmp_path):
    cfg, _ = with_shares
    damages = [
        (lambda folder: (folder / ".metadata").unlink(), "is half-written"),
        (lambda folder: (folder / "__0_0.distcp").unlink(), "is damaged"),
        (change("__0_0.distcp", cut_short), "is damaged (size or checksum of __0_0.distcp)"),
        (change("__0_0.distcp", flip_one_bit), "is damaged (size or checksum of __0_0.distcp)"),
        (change("state.pyth", lambda content: content[:-1]), "is damaged"),
        (change("__0_sums.json", lambda content: b"{}"), "is damaged"),
        (change(".metadata", cut_short), "is damaged"),
        (change(".metadata", lambda content: pickle.dumps(Evil())), "has no place in the index"),
    ]
    for number, (damage, words) in enumerate(damages):
        copy, told = str(tmp_path / str(number)), []
        shutil.copytree(f"{cfg.OUTPUT_DIR}/checkpoints", f"{copy}/checkpoints")
        damage(Path(checkpoint_path(copy, 3, ending=".dcp")))
        path, content = read_last(copy, told.append)
        assert path == checkpoint_path(copy, 2, ending=".dcp")
        assert content["epoch"] == 2
        assert len(told) == 1
        assert "epoch_00003.dcp" in told[0]
        assert words in told[0]
    assert not Path("evil").exists()


def test_a_run_goes_on_from_shares_with_the_weights_it_would_have_had(with_shares):
    cfg, weights = with_shares
    Path(checkpoint_path(cfg.OUTPUT_DIR, 3, ending=".dcp"), ".metadata").unlink()
    launch(cfg)
    assert log_of(cfg).count("warning: skipped a checkpoint") == 1
    assert "resumed after epoch 2 from" in log_of(cfg)
    assert same_weights(weights, weights_of(checkpoint_path(cfg.OUTPUT_DIR, 3)))


def test_sharded_checkpoints_are_tested_exported_and_removed_as_others_are(with_shares, small_cfg):
    cfg, weights = with_shares
    last = checkpoint_path(cfg.OUTPUT_DIR, 3, ending=".dcp")
    assert last_checkpoint(cfg.OUTPUT_DIR) == last
    tested = small_cfg(f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {last}")
    assert launch(tested).num_evaluated == 8
    out = Path(cfg.OUTPUT_DIR) / "weights.pyth"
    export_checkpoint(last, str(out), ema=False)
    assert same_weights(weights, torch.load(out, weights_only=True))
    Path(last, distributed.INDEX).unlink()
    assert last_checkpoint(cfg.OUTPUT_DIR) == checkpoint_path(cfg.OUTPUT_DIR, 2, ending=".dcp")
    with pytest.raises(UserError, match="TEST.CHECKPOINT_FILE_PATH.*is half-written.*older"):
        launch(tested)
    remove_old(cfg.OUTPUT_DIR, Position(3), keep=2)  # of which a half-written one is none
    assert positions(cfg.OUTPUT_DIR) == [Position(2), Position(1)]
    remove_old(cfg.OUTPUT_DIR, Position(3), keep=1)
    assert [path.name for path in Path(cfg.OUTPUT_DIR, "checkpoints").glob("*epoch*")] == [
        "checkpoint_epoch_00002.dcp"
    ]


def test_a_run_whose_checkpoints_are_all_broken_does_not_start_anew_by_itself(finished):
    cfg, _ = finished
    for epoch in (1, 2, 3):
        Path(checkpoint_path(cfg.OUTPUT_DIR, epoch)).write_bytes(b"")
    with pytest.raises(UserError, match="epoch_00003.*no whole checkpoint.*another OUTPUT_DIR"):
        launch(cfg)


def test_the_newest_checkpoints_are_kept(small_cfg):
    cfg = small_cfg(TRAIN_ONLY, "TRAIN.KEEP_CHECKPOINTS 2")
    launch(cfg)
    assert positions(cfg.OUTPUT_DIR) == [Position(3), Position(2)]


def touch_all(folder, *found):
    (folder / "checkpoints").mkdir(exist_ok=True)
    for position in found:
        Path(checkpoint_path(str(folder), *position)).touch()


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (0, [(4,), (2, 20), (2, 10), (2,), (1,), (0,)]),
        (1, [(4,), (2, 20), (2, 10), (2,)]),
        (2, [(4,), (2, 20), (2, 10), (2,), (1,)]),
    ],
)
def test_old_checkpoints_go_and_those_after_a_broken_one_do_not_count(tmp_path, keep, left):
    touch_all(tmp_path, (0,), (0, 10), (1,), (1, 10), (1, 20), (2,), (2, 10), (2, 20), (4,))
    remove_old(str(tmp_path), Position(2, 20), keep=keep)
    assert positions(str(tmp_path)) == [Position(*position) for position in left]


def test_those_inside_an_epoch_are_gone_when_two_newer_ones_are_there(tmp_path):
    touch_all(tmp_path, (1,), (1, 10), (1, 20), (2,))
    remove_old(str(tmp_path), Position(2), keep=0)
    assert positions(str(tmp_path)) == [Position(2), Position(1, 20), Position(1)]


def test_what_a_killed_run_left_unfinished_is_removed(finished):
    cfg, _ = finished
    folder = Path(cfg.OUTPUT_DIR) / "checkpoints"
    before = sorted(folder.iterdir())
    (folder / ".checkpoint_epoch_00004.pyth.abc.tmp").write_bytes(b"half")
    launch(cfg)
    assert sorted(folder.iterdir()) == before
    remove_unfinished("no such folder")


def test_the_best_validation_has_a_checkpoint_of_its_own(small_cfg):
    cfg = small_cfg("SOLVER.MAX_EPOCH 8 AUG.ENABLE False MIXUP.ENABLE False TEST.ENABLE False")
    launch(cfg)
    validations = Path(cfg.OUTPUT_DIR) / "checkpoints" / "validations.json"
    top1 = dict(simplejson.loads(validations.read_text()))
    assert list(top1) == list(range(1, 9))
    assert len(set(top1.values())) > 1
    best_epoch = max(top1, key=lambda epoch: (top1[epoch], -epoch))
    best = torch.load(best_path(cfg.OUTPUT_DIR), weights_only=True)
    assert (best["epoch"], best["val_top1"]) == (best_epoch, top1[best_epoch])
    assert same_weights(
        best["model_state"], weights_of(checkpoint_path(cfg.OUTPUT_DIR, best_epoch))
    )
    tested = small_cfg(f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {best_path(cfg.OUTPUT_DIR)}")
    assert launch(tested).num_evaluated == 8


def test_later_validations_do_not_count_for_a_run_that_has_gone_back(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    first = Validations(str(tmp_path), print)
    for epoch, top1 in ((1, 0.2), (2, 0.4), (3, 0.9)):
        assert first.is_best(epoch, top1)
        first.add(epoch, top1)
    again = Validations(str(tmp_path), print)
    assert again.done(3)
    assert not again.done(4)
    assert not again.is_best(3, 0.4)  # as good as the one after 2 epochs
    assert again.is_best(2, 0.3)
    again.add(2, 0.3)
    assert not Validations(str(tmp_path), print).done(3)


def test_validations_of_a_run_whose_checkpoints_are_gone_do_not_count(small_cfg):
    cfg = small_cfg("SOLVER.MAX_EPOCH 2 TRAIN.EVAL_PERIOD 2 TEST.ENABLE False")
    folder = Path(cfg.OUTPUT_DIR) / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "validations.json").write_text("[[1, 2.0]]")
    launch(cfg)
    assert (folder / "checkpoint_best.pyth").exists()
    top1 = dict(simplejson.loads((folder / "validations.json").read_text()))
    assert list(top1) == [2]


def test_a_run_that_died_before_its_validation_is_validated_when_it_goes_on(finished):
    cfg, _ = finished
    folder = Path(cfg.OUTPUT_DIR) / "checkpoints"
    shutil.copy(best_path(cfg.OUTPUT_DIR), folder / "old")
    (folder / "validations.json").unlink()
    Path(best_path(cfg.OUTPUT_DIR)).unlink()
    done = log_of(cfg).count("epoch 3/3 validation")
    launch(cfg)
    assert log_of(cfg).count("epoch 3/3 validation") == done + 1
    assert Path(best_path(cfg.OUTPUT_DIR)).exists()
    launch(cfg)
    assert log_of(cfg).count("epoch 3/3 validation") == done + 1


FULL_DISK = """
import resource, sys
from hiera_video.config import load_config
from hiera_video.engine.launch import launch
from hiera_video.utils import cli

def main():
    cfg = load_config(sys.argv[1], sys.argv[2:])
    # Log lines are small: only a checkpoint meets the limit, in the middle of its writing.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    launch(cfg)

cli.run(main)
"""


def test_a_disk_without_room_for_a_checkpoint_leaves_the_older_ones(small_cfg, tiny_set, tmp_path):
    cfg = small_cfg(TRAIN_ONLY, "SOLVER.MAX_EPOCH 1")
    launch(cfg)
    folder = Path(cfg.OUTPUT_DIR) / "checkpoints"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before[f"{Path(checkpoint_path('', 1)).name}"]) > 400_000
    config = Path(cfg.OUTPUT_DIR) / "config.yaml"
    command = [sys.executable, "-c", FULL_DISK, str(config), "SOLVER.MAX_EPOCH", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: OUTPUT_DIR: the checkpoint")
    assert "File too large" in ended.stderr
    assert "Older checkpoints are intact" in ended.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
