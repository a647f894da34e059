"""Text files as editors on Windows save them: a byte order mark first, and CRLF line ends."""

import codecs
import os

import pytest
import torch

from hiera_video.config import load_config
from hiera_video.data.datasets import folder, hmdb51, kinetics, shards, ssv2, ucf101
from hiera_video.data.prepare.lists import read_classes
from hiera_video.data.prepare.sources import read_source
from hiera_video.data.records import VideoRecord
from hiera_video.data.shards.index import read_index as read_shard_index
from hiera_video.inference.load import load_trained
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.utils.io import open_file


def save(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode())


@pytest.mark.parametrize("module", [kinetics, folder, shards])
def test_class_names(tmp_path, module):
    save(tmp_path / "classes.txt", "moves_left\nmoves_right\n")
    assert module.class_names(str(tmp_path)) == ["moves_left", "moves_right"]


@pytest.mark.parametrize("name", ["classes.txt", "names.txt"])
def test_classes_of_prepare_videos(tmp_path, name):
    save(tmp_path / name, "moves_left\nmoves_right\n")
    assert read_classes(str(tmp_path / name)) == ["moves_left", "moves_right"]


def test_class_names_of_predict(tmp_path):
    save(tmp_path / "names.txt", "# a comment\nmoves_left\nmoves_right\n")
    torch.save({"model_state": hiera_micro_8x64(num_classes=2).state_dict()}, tmp_path / "a.pyth")
    config = tmp_path / "a.yaml"
    config.write_text(
        "MODEL: {MODEL_NAME: hiera_micro_8x64, NUM_CLASSES: 2}\n"
        "DATA: {NUM_FRAMES: 8, TRAIN_CROP_SIZE: 64, TEST_CROP_SIZE: 64}\n"
    )
    found = load_trained(
        str(tmp_path / "a.pyth"),
        cfg=load_config(str(config)),
        class_names=str(tmp_path / "names.txt"),
        device="cpu",
    )
    assert found.class_names == ("moves_left", "moves_right")


@pytest.mark.parametrize("labelled", [True, False])
def test_csv_lists(tmp_path, labelled):
    save(tmp_path / "train.csv", "a.mp4 1\nb.mp4 0\n")
    records = kinetics.read_index(str(tmp_path), "train", labelled=labelled)
    paths = [os.path.join(tmp_path, name) for name in ("a.mp4", "b.mp4")]
    assert [record.path for record in records] == paths
    assert [record.label for record in records] == ([1, 0] if labelled else [-1, -1])


@pytest.mark.parametrize("text", ['"a.mp4"\nb.mp4\n', "a.mp4 0\nb.mp4 1\n"])
def test_csv_lists_of_prepare_videos(tmp_path, text):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    save(tmp_path / "train.csv", text)
    source = read_source([str(tmp_path / "train.csv")])
    assert [os.path.basename(entry.path) for entry in source.entries] == ["a.mp4", "b.mp4"]


def test_ssv2(tmp_path):
    save(tmp_path / "labels.json", '{"Holding something":\n "0"}')
    save(tmp_path / "train.json", '[{"id": "7", "template": "Holding [something]"}]\n')
    (record,) = ssv2.read_index(str(tmp_path), "train")
    assert record.label == 0
    assert ssv2.class_names(str(tmp_path)) == ["Holding something"]


def test_ucf101(tmp_path):
    save(tmp_path / "classInd.txt", "1 Archery\n2 Basketball\n")
    save(tmp_path / "trainlist01.txt", "Basketball/v.avi 2\n")
    expected = VideoRecord(os.path.join(tmp_path, "Basketball/v.avi"), 1, 0)
    assert ucf101.read_index(str(tmp_path), "train") == [expected]
    assert ucf101.class_names(str(tmp_path)) == ["Archery", "Basketball"]


def test_hmdb51(tmp_path):
    save(tmp_path / "wave_test_split1.txt", "a.avi 1\nb.avi 2\n")
    expected = VideoRecord(os.path.join(tmp_path, "wave/a.avi"), 0, 0)
    assert hmdb51.read_index(str(tmp_path), "train") == [expected]


def test_the_index_of_shards(tmp_path):
    save(
        tmp_path / "train.json",
        '{"version": 1,\n "shards": [{"file": "a.tar", "samples": [["x.mp4", 512, 9, 0]]}]}\n',
    )
    (shard,) = read_shard_index(str(tmp_path / "train.json"))
    assert shard.file == "a.tar"


def test_a_config_and_its_base(tmp_path):
    save(tmp_path / "base.yaml", "MODEL:\n  NUM_CLASSES: 7\n")
    save(tmp_path / "run.yaml", "_BASE_: base.yaml\nSOLVER:\n  MAX_EPOCH: 3\n")
    cfg = load_config(str(tmp_path / "run.yaml"))
    assert (cfg.MODEL.NUM_CLASSES, cfg.SOLVER.MAX_EPOCH) == (7, 3)


def test_what_is_written_has_no_mark(tmp_path):
    with open_file(str(tmp_path / "a.txt"), "w") as file:
        file.write("a\n")
    assert (tmp_path / "a.txt").read_bytes() == b"a\n"
