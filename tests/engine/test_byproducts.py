"""What a run writes beside its checkpoints, on full disks and in folders that are removed."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.modules.module import register_module_forward_pre_hook

from hiera_video.engine.launch import launch
from hiera_video.engine.run_log import RunLog
from hiera_video.engine.validations import Validations
from hiera_video.models.hiera import Hiera
from hiera_video.utils.byproducts import AppendedFile
from hiera_video.utils.errors import UserError


class Disk:
    """A file system of its own, of 64 MB."""

    def __init__(self, place):
        self.place = place
        self._filler = place / "filler"

    def fill(self, *, left=0):
        with open(self._filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(1 << 16)):
                    pass
            except OSError:
                file.truncate(max(file.tell() - left, 0))

    def free(self):
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path):
    """A disk that can be filled; the test is skipped where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
    except OSError:
        pytest.skip("no mount here")
    yield Disk(place)
    subprocess.run(["umount", "-l", str(place)], check=True)


def scalars_in(folder):
    """Return the (step, value) pairs of all events files, by tag."""
    found = {}
    for file in sorted(Path(folder).glob("events.*")):
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((e.step, e.value) for e in events.Scalars(tag))
    return found


def test_a_log_goes_on_when_there_is_room_again(disk, capsys):
    log = RunLog(str(disk.place), tensorboard=True)
    log.line("first")
    log.scalars(1, train__loss=0.5)
    disk.fill()
    for number in range(400):  # more than a block of the disk
        log.line(f"lost? {number} " + "x" * 100)
        log.scalars(100 + number, train__loss=0.25)
    disk.free()
    log.line("last")
    log.scalars(3, train__loss=0.125)
    log.close()

    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.count("lost?") == 400  # the console has them all
    path = disk.place / "stdout.log"
    (warning,) = [line for line in said.out.splitlines() if "stdout.log' cannot" in line]
    assert f"warning: '{path}' cannot be written (No space left on device)." in warning
    assert said.out.count("cannot be written") == 2  # the log, and the scalars
    lines = [line.split("] ", 1)[1] for line in path.read_text().splitlines()]
    assert lines[0] == "first"
    assert re.fullmatch(r"warning: \d+ lines could not be written here", lines[-2])
    assert lines[-1] == "last"
    assert all(line.startswith("lost?") and line.endswith("x" * 100) for line in lines[1:-2])
    values = scalars_in(disk.place / "tensorboard")["train/loss"]
    assert values[0] == (1, 0.5)
    assert values[-1] == (3, 0.125)


def test_a_log_whose_folder_is_removed_begins_anew(tmp_path):
    folder = tmp_path / "output"
    folder.mkdir()
    log = RunLog(str(folder), tensorboard=True)
    log.line("first")
    shutil.rmtree(folder)
    log.line("second")
    log.scalars(1, train__loss=0.5)
    log.close()
    assert (folder / "stdout.log").read_text().endswith("] second\n")
    assert scalars_in(folder / "tensorboard") == {"train/loss": [(1, 0.5)]}


def test_a_log_whose_open_file_is_lost_is_opened_again(tmp_path):
    warnings = []
    file = AppendedFile(str(tmp_path / "x"), warnings.append, gap=lambda n: b"<%d>" % n)
    file.append(b"one ")
    os.close(file._descriptor)  # as a restarted file server forgets open files
    for piece in (b"two ", b"three ", b"four"):
        file.append(piece)
    file.close()
    assert (tmp_path / "x").read_bytes() == b"one <1>three four"
    assert len(warnings) == 1


def test_a_console_that_the_program_has_closed_ends_nothing(tmp_path, monkeypatch):
    console = io.StringIO()
    monkeypatch.setattr(sys, "stdout", console)
    log = RunLog(str(tmp_path), tensorboard=False)
    console.close()
    log.line("further on")
    log.close()
    assert "further on" in (tmp_path / "stdout.log").read_text()


def test_a_piece_is_written_whole_or_not_at_all(disk):
    warnings = []
    file = AppendedFile(str(disk.place / "x"), warnings.append, gap=lambda n: b"<%d>" % n)
    file.append(b"a" * 4000)
    disk.fill()
    file.append(b"b" * 5000)  # the block that the file has takes a part of it
    file.append(b"c" * 5000)
    assert (disk.place / "x").read_bytes() == b"a" * 4000
    disk.free()
    file.append(b"d")
    file.close()
    assert (disk.place / "x").read_bytes() == b"a" * 4000 + b"<2>d"
    assert len(warnings) == 1


def test_validations_that_cannot_be_written_are_written_with_the_next(disk):
    warnings = []
    validations = Validations(str(disk.place), warnings.append)
    validations.add(1, 0.25)
    disk.fill()
    validations.add(2, 0.5)
    assert len(warnings) == 1
    assert not validations.is_best(3, 0.4)
    disk.free()
    validations.add(3, 0.125)
    content = json.loads((disk.place / "checkpoints" / "validations.json").read_text())
    assert content == [[1, 0.25], [2, 0.5], [3, 0.125]]


@pytest.mark.parametrize("fault", ["full", "removed"])
def test_a_training_goes_on_without_its_log(small_cfg, disk, capsys, fault):
    keys = "TRAIN.CHECKPOINT_PERIOD 2 TRAIN.EVAL_PERIOD 2 TEST.ENABLE False TENSORBOARD.ENABLE True"
    cfg = small_cfg(keys, f"OUTPUT_DIR {disk.place / 'run'}")
    passes = 0

    def between(module, _):
        nonlocal passes
        if not (isinstance(module, Hiera) and module.training):
            return
        passes += 1
        if fault == "removed" and passes == 1:
            shutil.rmtree(cfg.OUTPUT_DIR)
        elif fault == "full" and passes in (1, 3):
            (disk.fill if passes == 1 else disk.free)()

    with register_module_forward_pre_hook(between):
        launch(cfg)
    assert passes == 4
    assert (Path(cfg.OUTPUT_DIR) / "checkpoints" / "checkpoint_epoch_00002.pyth").exists()
    assert "epoch 2/2 done" in (Path(cfg.OUTPUT_DIR) / "stdout.log").read_text()
    assert scalars_in(Path(cfg.OUTPUT_DIR) / "tensorboard")["train/loss"][-1][0] == 4
    assert capsys.readouterr().err == ""


def with_scores_file(cfg, name):
    return replace(cfg, TEST=replace(cfg.TEST, SCORES_FILE=name))


@pytest.mark.parametrize("name", ["x" * 300 + ".npz", "a\0b.npz", "folder.npz"])
def test_a_scores_file_that_cannot_be_written_is_refused_before_the_run(small_cfg, name):
    cfg = with_scores_file(small_cfg("SOLVER.MAX_EPOCH 1"), name)
    (Path(cfg.OUTPUT_DIR) / "folder.npz").mkdir(parents=True)
    with pytest.raises(UserError, match=r"TEST.SCORES_FILE must be a file that can be written"):
        launch(cfg)
    assert not (Path(cfg.OUTPUT_DIR) / "stdout.log").exists()


def test_results_that_cannot_be_written_after_a_test_get_other_names(small_cfg):
    cfg = small_cfg("SOLVER.MAX_EPOCH 1")
    folder = Path(cfg.OUTPUT_DIR)

    def obstruct(module, _):
        if isinstance(module, Hiera) and not module.training:
            for name in ("test_scores.npz", "test_results.json", "test_confusion.png"):
                (folder / name).mkdir(exist_ok=True)

    with register_module_forward_pre_hook(obstruct):
        result = launch(cfg)
    log = (folder / "stdout.log").read_text()
    (scores,) = folder.glob("test_scores-*.npz")
    (results,) = folder.glob("test_results-*.json")
    assert f"test_scores.npz' cannot be written (Is a directory). Written: '{scores}'." in log
    assert f"Written: '{results}'." in log
    assert "test_confusion.png' cannot be written (Is a directory)" in log
    with np.load(scores) as found:
        assert np.array_equal(found["scores"], result.scores_NK)
    assert json.loads(results.read_text())["num_evaluated"] == result.num_evaluated
