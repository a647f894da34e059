"""Lists and folders with every fault in them, from the command line to the files of the result."""

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import simplejson

from hiera_video.data.datasets import folder as folder_dataset
from hiera_video.data.datasets import hmdb51, kinetics, shards, ssv2, ucf101
from hiera_video.utils.errors import UserError

NOBODY = 65534
SMALL = (
    "--cfg configs/Demo/HIERA_MICRO.yaml DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 "
    "DATA.TEST_CROP_SIZE 32 TRAIN.BATCH_SIZE 4 SOLVER.MAX_EPOCH 1 TENSORBOARD.ENABLE False "
    "TEST.NUM_TEMPORAL_CLIPS 2 TEST.VIEWS_TABLE False"
)
# What each bad file of the fixture `bad_videos` is told to be, in training and in a test alike.
REASONS = {
    "empty.mp4": "is empty (0 bytes)",
    "half_a_header.mp4": "damaged or truncated in its header",
    "no_header.mp4": "not a readable video",
    "cut_off.mp4": "of the promised 40 frames can be decoded",
    "damaged.mp4": "of the promised 40 frames can be decoded",
    "unknown_codec.mp4": "in a codec that FFmpeg does not know",
    "noise.mp4": "not a readable video",
    "directory.mp4": "is a directory",
    "sound.wav": "holds no video stream (only audio)",
    "missing.mp4": "no such file",
}
# Odd, but videos all the same.
ODD = [
    *("one_frame.mp4", "h264_turned.mp4", "odd_size.avi"),
    *("edit_list.mp4", "two_streams.mp4", "vp9_no_duration.webm"),
]


def run_tool(name: str, line: str, capsys, monkeypatch) -> tuple[int, str, str]:
    """Run tools/NAME.py as the command line does; return exit status, output and errors."""
    monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *line.split()])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(f"tools/{name}.py", run_name="__main__")
    return int(stop.value.code or 0), *capsys.readouterr()


@pytest.fixture(scope="session")
def odd_videos(videos, make_video, index_frames, tmp_path_factory):
    """Videos that are unusual, each readable: by name."""
    folder = tmp_path_factory.mktemp("odd")
    boaster = bytearray(Path(videos["mpeg4.avi"]).read_bytes())
    for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # the two counts of frames
        place = boaster.index(chunk) + offset
        boaster[place : place + 4] = (1000).to_bytes(4, "little")
    (folder / "boaster.avi").write_bytes(boaster)
    make_video(folder / "three frames.mkv", index_frames(3))
    shutil.copy(videos["h264_b.mp4"], folder / "žluťoučký kůň, 日本.mp4")
    found = {path.name: str(path) for path in folder.iterdir()}
    return found | {name: videos[name] for name in ODD}


@pytest.fixture
def mixed(odd_videos, bad_videos, videos, tmp_path):
    """A folder whose train and test lists hold every odd and every bad video; val is good."""
    paths = [*odd_videos.values(), *(bad_videos[name] for name in REASONS)]
    paths.append(videos["h264_b.mkv"])
    assert len(paths) == 20  # five whole batches: every video has its turn in an epoch
    lines = [f"{path} {number % 8}" for number, path in enumerate(paths)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "val.csv").write_text(lines[0] + "\n")
    return tmp_path


def test_a_run_over_every_kind_of_bad_file(mixed, bad_videos, capsys, monkeypatch):
    small = (
        f"{SMALL} DATA.PATH_TO_DATA_DIR {mixed} OUTPUT_DIR {mixed}/out DATA_LOADER.NUM_WORKERS 1"
    )
    status, out, _ = run_tool("run_net", f"{small} DATA.MAX_BAD_FRACTION 0.9", capsys, monkeypatch)
    assert status == 0
    assert "10 of 20 videos evaluated" in out
    log = (mixed / "out" / "stdout.log").read_text()
    for name, reason in REASONS.items():
        told = [line for line in log.splitlines() if f"{bad_videos[name]}: " in line]
        replaced = [line for line in told if "Another video took its place" in line]
        not_evaluated = [line for line in told if "Not evaluated" in line]
        assert len(replaced) == len(not_evaluated) == 1, name  # however often it was drawn
        assert all(reason in line for line in told), told
    assert log.count("Another video took its place") == len(REASONS)
    assert (mixed / "out" / "checkpoints" / "checkpoint_epoch_00001.pyth").exists()
    results = simplejson.loads((mixed / "out" / "test_results.json").read_text())
    assert (results["num_evaluated"], results["num_videos"]) == (10, 20)
    missing = {os.path.basename(entry["path"]): entry for entry in results["not_evaluated"]}
    assert missing.keys() == REASONS.keys()
    assert all(REASONS[name] in entry["reason"] for name, entry in missing.items())
    evaluated = np.load(mixed / "out" / "test_scores.npz")["paths"].tolist()
    assert not {entry["path"] for entry in results["not_evaluated"]} & set(evaluated)

    (mixed / "out" / "test_results.json").unlink()
    status, out, err = run_tool(
        "test_net", f"{small} DATA.MAX_BAD_FRACTION 0.49", capsys, monkeypatch
    )
    assert status == 1
    assert err.startswith("error: DATA.MAX_BAD_FRACTION")
    assert "10 of the 20 videos of the test split could not be evaluated" in err
    assert simplejson.loads((mixed / "out" / "test_results.json").read_text()) == results


def test_training_stops_at_the_share_of_bad_files_that_is_allowed(mixed, capsys, monkeypatch):
    words = f"{SMALL} DATA.PATH_TO_DATA_DIR {mixed} OUTPUT_DIR {mixed}/out TEST.ENABLE False"
    status, _, err = run_tool("run_net", f"{words} DATA_LOADER.NUM_WORKERS 0", capsys, monkeypatch)
    assert status == 1
    assert err.startswith("error: DATA.MAX_BAD_FRACTION")
    assert "tools/check_data.py" in err
    assert not (mixed / "out" / "checkpoints" / "checkpoint_epoch_00001.pyth").exists()


def test_a_video_that_is_listed_twice_is_two_videos(videos, tmp_path, capsys, monkeypatch):
    """Kept in training, two results in a test; tools/check_data.py tells of it."""
    lines = [f"{videos['h264_b.mp4']} 1", f"{videos['vp9.webm']} 2", f"{videos['h264_b.mp4']} 1"]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    words = (
        f"{SMALL} DATA.PATH_TO_DATA_DIR {tmp_path} OUTPUT_DIR {tmp_path}/out TRAIN.BATCH_SIZE 3 "
        "DATA_LOADER.NUM_WORKERS 0"
    )
    status, out, _ = run_tool("run_net", words, capsys, monkeypatch)
    assert status == 0
    assert "on 3 videos" in out
    assert "3 of 3 videos evaluated" in out
    scores = np.load(tmp_path / "out" / "test_scores.npz")
    assert [os.path.basename(path) for path in scores["paths"]] == [
        "h264_b.mp4",
        "vp9.webm",
        "h264_b.mp4",
    ]
    np.testing.assert_allclose(scores["scores"][0], scores["scores"][2], atol=1e-5)
    records = kinetics.read_index(str(tmp_path), "train")
    assert [record.video_index for record in records] == [0, 1, 2]
    check = f"--data-dir {tmp_path} --split train --workers 1 --output {tmp_path}/check"
    status, out, _ = run_tool("check_data", check, capsys, monkeypatch)
    assert status == 0
    assert f"note: videos listed more than once (1): {videos['h264_b.mp4']}" in out


@pytest.mark.parametrize("delimiter", [";", "|", ":"])
def test_another_delimiter_is_refused_with_what_is_wanted(delimiter, tmp_path):
    (tmp_path / "train.csv").write_text(f"a.mp4{delimiter}0\nb.mp4{delimiter}1\n")
    with pytest.raises(UserError) as caught:
        kinetics.read_index(str(tmp_path), "train", num_classes=8)
    first, _ = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}/train.csv:1: a line must be `path label`, got 'a.mp4")


@pytest.mark.parametrize(
    "line", ["label,path", "a.mp4 0 extra", "0 a.mp4", "a.mp4 0.0", "a.mp4 cat", "a.mp4 -1"]
)
def test_columns_in_another_order_are_refused(line, tmp_path):
    (tmp_path / "train.csv").write_text(f"{line}\nb.mp4 1\n")
    with pytest.raises(UserError, match=r"train\.csv:1: .*(whole number|0 or more)"):
        kinetics.read_index(str(tmp_path), "train", num_classes=8)


LISTS = {kinetics: "train.csv", ssv2: "train.json", shards: "train.json"} | {
    ucf101: "trainlist01.txt",
    hmdb51: "wave_test_split1.txt",
    folder_dataset: "train/wave/a.mp4",
}


@pytest.mark.parametrize("dataset", LISTS, ids=lambda module: module.__name__.split(".")[-1])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_an_unreadable_folder_of_lists_is_one_error(dataset):
    root = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    root.chmod(0o755)
    closed = root / "closed"
    (closed / LISTS[dataset]).parent.mkdir(parents=True)
    (closed / LISTS[dataset]).write_text("a.mp4 0\n")
    closed.chmod(0)

    def say() -> str:
        try:
            dataset.read_index(str(closed), "train", num_classes=8)
        except UserError as error:
            return f"told: {error}"
        return "no error"

    try:
        said = as_nobody(say)
    finally:
        shutil.rmtree(root)
    assert said.startswith("told: ")
    assert str(closed) in said
    assert "\n" not in said


def as_nobody(function) -> str:
    """Call `function` in a fork that runs as another user; return what it says."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(NOBODY)
            os.write(writing, function().encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read()


def can_unshare() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_unshare(), reason="no mount namespace of one's own")
@pytest.mark.parametrize(
    "options", ["size=64k", pytest.param("size=64k,ro", marks=pytest.mark.slow)]
)
def test_a_run_needs_no_shared_memory_folder(options, videos, tmp_path):
    """/dev/shm of 64 kB, and none that can be written to: a batch alone is larger than that."""
    names = ["h264_b.mp4", "vp9.webm", "mpeg4.avi", "vp8.webm"]
    lines = [f"{videos[name]} {number}" for number, name in enumerate(names)]
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    run = (
        f"{sys.executable} tools/run_net.py {SMALL} DATA.PATH_TO_DATA_DIR {tmp_path} "
        f"OUTPUT_DIR {tmp_path}/out DATA_LOADER.NUM_WORKERS 1 DATA.TRAIN_CROP_SIZE 64 "
        "DATA.TEST_CROP_SIZE 64"
    )
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec {run}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "4 of 4 videos evaluated" in done.stdout
