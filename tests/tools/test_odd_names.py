"""Every tool reads the file that a name means, and no file that a playlist names."""

import csv
import os
import shutil

import pytest
import simplejson
import torch

from hiera_video.config import load_config, to_yaml
from hiera_video.data.decoders import open_video
from hiera_video.models.hiera import hiera_micro_8x64

# Relative names that FFmpeg takes for protocols; `file:other.mp4` would be another video.
NAMES = ("12:30:00.mp4", "file:other.mp4", "pipe:0.mp4")
LIST = "list.mp4"
CLIPS = "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32"
SMALL = (
    f"--cfg configs/Demo/HIERA_MICRO.yaml {CLIPS} TRAIN.BATCH_SIZE 4 "
    "DATA_LOADER.NUM_WORKERS 0 SOLVER.MAX_EPOCH 1 "
    "TENSORBOARD.ENABLE False DATA.MAX_BAD_FRACTION 0.5 TEST.VIEWS_TABLE False "
    "DATA.PATH_TO_DATA_DIR ."
)


@pytest.fixture
def here(videos, make_video, index_frames, tmp_path, monkeypatch):
    """A working directory of such videos and a playlist, with lists of them."""
    for name in ("configs", "tools"):
        (tmp_path / name).symlink_to(os.path.abspath(name))
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        shutil.copy(videos["h264_b.mp4"], name)
    make_video("other.mp4", index_frames(3))
    with open(LIST, "w") as file:
        file.write("ffconcat version 1.0\nfile other.mp4\n")
    lines = [f"{name} {number}\n" for number, name in enumerate((*NAMES, LIST))]
    for split in ("train", "val", "test"):
        with open(f"{split}.csv", "w") as file:
            file.write("".join(lines))
    return tmp_path


@pytest.mark.parametrize("backend", ["auto", "decord", "torchcodec"])
def test_training_and_test(here, run_tool, backend):
    if backend != "auto":
        pytest.importorskip(backend)
    outcome = run_tool("run_net", f"{SMALL} OUTPUT_DIR out:1 DATA.DECODING_BACKEND {backend}")
    assert (outcome.status, outcome.err) == (0, "")
    assert "3 of 4 videos evaluated" in outcome.out
    log = (here / "out:1" / "stdout.log").read_text()
    bad = "is not a readable video but an ffconcat list"
    replaced = [line for line in log.splitlines() if "Another video took its place" in line]
    assert len(replaced) == 1
    assert f"{LIST}: {bad}" in replaced[0]
    results = simplejson.loads((here / "out:1" / "test_results.json").read_text())
    assert [(entry["path"], bad in entry["reason"]) for entry in results["not_evaluated"]] == [
        (LIST, True)
    ]


def test_prediction_streams_and_features(here, run_tool, tmp_path):
    weights = str(tmp_path / "weights.pyth")
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", CLIPS.split())
    model = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8)
    torch.save({"model_state": model.state_dict(), "cfg": to_yaml(cfg)}, weights)
    predicted = run_tool("predict", f"{NAMES[1]} --checkpoint {weights} --overlay 0:o.mp4")
    assert predicted.status == 0, predicted.err
    with open_video("0:o.mp4") as reader:
        assert reader.num_frames == 40
    for words in (LIST, f"--stream {LIST}"):
        refused = run_tool("predict", f"{words} --checkpoint {weights}")
        assert refused.status == 1
        assert "not a readable video" in refused.err + refused.out
    streamed = run_tool("predict", f"--stream {NAMES[0]} --checkpoint {weights}")
    assert streamed.status == 0, streamed.err


def test_checking_and_preparing(here, run_tool):
    outcome = run_tool("check_data", "--data-dir . --split train --workers 1 --output out:1")
    assert outcome.status == 1
    with open("out:1/train_bad.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [LIST]
    prepared = run_tool("prepare_videos", "train.csv 12:30 --workers 1 --short-side 32")
    assert prepared.status == 1
    with open("12:30/failed.csv") as file:
        assert "ffconcat" in file.read()
    for name in NAMES:
        with open_video(os.path.join("12:30", "videos", name)) as reader:
            assert reader.num_frames == 40
            assert reader.frames_at([0]).shape == (1, 32, 42, 3)
