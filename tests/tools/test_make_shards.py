import csv
import shutil

import pytest

from hiera_video.data.datasets import kinetics, shards
from hiera_video.data.shards.members import parse_member

CFG = "--cfg configs/Demo/HIERA_MICRO.yaml"


@pytest.fixture
def made(run_tool, small_set, tmp_path):
    """The folder of shards of the small set's train and val videos."""
    folder = tmp_path / "shards"
    for split in ("train", "val"):
        line = f"{CFG} --split {split} --output {folder} --shard-size-mb 0.02"
        outcome = run_tool("make_shards", f"{line} DATA.PATH_TO_DATA_DIR {small_set}")
        assert outcome.status == 0, outcome.err
    return folder


def labels(dataset, folder, split):
    return sorted(record.label for record in dataset.read_index(str(folder), split))


def test_shards_hold_the_videos_labels_and_class_names(small_set, made):
    for split in ("train", "val"):
        assert labels(shards, made, split) == labels(kinetics, small_set, split)
    assert shards.class_names(str(made)) == kinetics.class_names(str(small_set))
    assert len(list(made.glob("train-*.tar"))) > 1
    assert sorted(path.name for path in made.iterdir() if path.suffix != ".tar") == [
        "classes.txt",
        "train.json",
        "val.json",
    ]


def test_without_a_config_classes_are_counted(run_tool, small_set, tmp_path):
    folder = tmp_path / "s"
    outcome = run_tool("make_shards", f"--data-dir {small_set} --split val --output {folder}")
    assert outcome.status == 0
    assert f"val: 8 videos in 1 shards in {folder}" in outcome.out
    assert len(shards.read_index(str(folder), "val", num_classes=8)) == 8


def test_an_index_of_shards_that_are_there(run_tool, made):
    expected = shards.read_index(str(made), "train")
    (made / "train.json").unlink()
    outcome = run_tool("make_shards", f"--index-of {made} --split train")
    assert outcome.status == 0
    assert f"written: {made}/train.json" in outcome.out
    assert shards.read_index(str(made), "train") == expected
    outcome = run_tool("make_shards", f"--index-of {made} --split test")
    assert outcome.status == 1
    assert "--index-of must be a folder of test-000000.tar" in outcome.err


def test_videos_that_are_left_out_are_listed(run_tool, small_set, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small_set, data)
    first, second, *_ = kinetics.read_index(str(data), "val")
    with open(first.path, "wb") as file:
        file.write(b"no video")
    shutil.move(second.path, f"{second.path}.moved")
    folder = tmp_path / "s"
    outcome = run_tool("make_shards", f"--data-dir {data} --split val --output {folder}")
    assert outcome.status == 1
    assert "val: 6 videos" in outcome.out
    with open(folder / "val_left_out.csv", encoding="utf-8", newline="") as file:
        listed = {row[0]: row[1] for row in csv.reader(file)}
    assert set(listed) == {"path", first.path, second.path}
    assert listed[second.path] == "no such file."
    assert len(shards.read_index(str(folder), "val")) == 6


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("--split val", 2, "one of the arguments --cfg --data-dir --index-of is required"),
        ("--data-dir x", 2, "--output is missing"),
        ("--data-dir x --output y --shard-size-mb 0", 2, "must be above 0"),
        ("--data-dir x --output y", 1, "DATA.PATH_TO_DATA_DIR must be the folder of train.csv"),
    ],
)
def test_a_wrong_command_line(run_tool, line, status, words):
    outcome = run_tool("make_shards", line)
    assert outcome.status == status
    assert words in outcome.err


def test_what_is_there_is_kept(run_tool, small_set, made):
    line = f"{CFG} --output {made} DATA.PATH_TO_DATA_DIR {small_set}"
    outcome = run_tool("make_shards", line)
    assert outcome.status == 1
    assert "which has train.json" in outcome.err
    (made / "classes.txt").write_text("others\n")
    outcome = run_tool("make_shards", line)
    assert outcome.status == 1
    assert "whose classes.txt names others" in outcome.err


def test_members_are_where_the_index_says(made):
    for record in shards.read_index(str(made), "val"):
        member = parse_member(record.path)
        with open(member.shard, "rb") as file:
            file.seek(member.offset)
            assert file.read(12)[4:8] == b"ftyp"  # how an mp4 begins
