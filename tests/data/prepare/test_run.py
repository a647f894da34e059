import csv
import os
import shutil

import pytest

from hiera_video.data.datasets import kinetics
from hiera_video.data.decoders import open_video
from hiera_video.data.prepare.encode import Encoding
from hiera_video.data.prepare.journal import Journal
from hiera_video.data.prepare.plan import split_off_val
from hiera_video.data.prepare.run import list_only, prepare
from hiera_video.data.prepare.sources import read_source
from hiera_video.utils.errors import UserError


def run(source, output, **changed):
    options = {"encoding": Encoding(), "num_workers": 2, "time_limit_sec": 60.0}
    return prepare(source, str(output), **{**options, **changed})


def bad_files(output):
    with open(output / "failed.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "reason"]
    return dict(rows)


def files_in(folder):
    return sorted(
        os.path.relpath(os.path.join(path, name), folder)
        for path, _folders, names in os.walk(folder)
        for name in names
    )


@pytest.fixture(scope="module")
def folder(videos, bad_videos, tmp_path_factory):
    """Class folders with good files, bad ones, and two that would have one name."""
    root = tmp_path_factory.mktemp("set")
    for name, source in {
        "über laufen/1 a.mp4": videos["h264_b.mp4"],
        "über laufen/1 a.avi": videos["mpeg4.avi"],
        "über laufen/turned.mp4": videos["h264_turned.mp4"],
        "gehen/vp9.webm": videos["vp9.webm"],
        "gehen/empty.mp4": bad_videos["empty.mp4"],
        "gehen/damaged.mp4": bad_videos["damaged.mp4"],
        "gehen/noise, too.mp4": bad_videos["noise.mp4"],
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, root / name)
    return root


def test_a_set_is_prepared_once_and_bad_files_are_named(folder, decode_index, tmp_path):
    output = tmp_path / "aus gabe"
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    summary = run(read_source([str(folder)]), output)
    assert (summary.num_ready, summary.num_before, summary.lists) == (4, 0, {"train": 4})
    assert summary.share_failed == pytest.approx(3 / 7)
    assert summary.output_bytes == sum(path.stat().st_size for path in output.rglob("*.mp4"))
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before

    found = bad_files(output)
    assert found[str(folder / "gehen" / "empty.mp4")] == "is empty (0 bytes)"
    assert found[str(folder / "gehen" / "damaged.mp4")].startswith("stops to decode after ")
    assert "unknown format" in found[str(folder / "gehen" / "noise, too.mp4")]

    assert kinetics.class_names(str(output)) == ["gehen", "über laufen"]
    records = kinetics.read_index(str(output), "train", num_classes=2)
    assert [(os.path.relpath(record.path, output), record.label) for record in records] == [
        ("videos/gehen/vp9.mp4", 0),
        ("videos/über laufen/1 a.avi.mp4", 1),
        ("videos/über laufen/1 a.mp4", 1),
        ("videos/über laufen/turned.mp4", 1),
    ]
    for record in records[:3]:
        with open_video(record.path) as reader:
            assert list(map(decode_index, reader.frames_at([0, 39]))) == [0, 39]
    with open_video(records[3].path) as reader:
        assert reader.frames_at([0]).shape == (1, 96, 64, 3)

    made = {path: path.stat().st_mtime_ns for path in output.rglob("*.mp4")}
    again = run(read_source([str(folder)]), output)
    assert (again.num_ready, again.num_before, len(again.failed)) == (4, 4, 3)
    assert again.source_bytes == summary.source_bytes
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.mp4")} == made


def test_a_file_that_hangs_costs_its_time_limit_and_nothing_else(
    videos, make_video, index_frames, tmp_path
):
    # What is after its pictures is nothing, without end: FFmpeg looks for more until it is killed.
    hangs = tmp_path / "set" / "k" / "hangs.webm"
    hangs.parent.mkdir(parents=True)
    make_video(hangs, index_frames(5), codec="libvpx", container_options={"live": "1"})
    os.truncate(hangs, 1 << 40)
    shutil.copy(videos["h264_b.mp4"], hangs.parent)
    output = tmp_path / "out"
    summary = run(read_source([str(tmp_path / "set")]), output, time_limit_sec=1.0, num_workers=1)
    assert summary.num_ready == 1
    assert bad_files(output)[str(hangs)] == "took longer than 1 s (opening the file, frame 0)"
    assert files_in(output / "videos") == ["k/h264_b.mp4"]


def test_nothing_of_anothers_is_touched(folder, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "train.csv").write_text("mine.mp4 0\n")
    source = read_source([str(folder)])
    with pytest.raises(UserError, match=r"has a train.csv of another origin"):
        run(source, output)
    with pytest.raises(UserError, match=r"has a train.csv of another origin"):
        list_only(source, str(output))
    assert files_in(output) == ["train.csv"]
    with pytest.raises(UserError, match="another folder than that of the videos"):
        run(source, folder)
    lists = read_source([str(output)])
    with pytest.raises(UserError, match="another folder than that of SOURCE's lists"):
        run(lists, output)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="OUTPUT must be a folder with room"):
        run(source, tmp_path / "file")


def test_two_runs_do_not_write_one_folder(folder, tmp_path):
    with (
        Journal(str(tmp_path), {}),
        pytest.raises(UserError, match="by one run at a time"),
    ):
        run(read_source([str(folder)]), tmp_path)


def test_values_out_of_range_are_refused(folder, tmp_path):
    source = read_source([str(folder)])
    for values, words in (
        ({"num_workers": 0}, "--workers must be at least 1"),
        ({"time_limit_sec": 0.0}, "--time-limit must be above 0"),
        ({"encoding": Encoding(crf=99)}, "--crf must be in"),
    ):
        with pytest.raises(UserError, match=words):
            run(source, tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()


def test_lists_alone_name_the_videos_where_they_are(folder, tmp_path):
    source = read_source([str(folder)])
    split_off_val(source, 0.34)
    summary = list_only(source, str(tmp_path))
    assert summary.lists == {"train": 5, "val": 2, "test": 2}
    records = kinetics.read_index(str(tmp_path), "train") + kinetics.read_index(
        str(tmp_path), "val"
    )
    assert {record.path for record in records} == {entry.path for entry in source.entries}
    assert not (tmp_path / "videos").exists()


def test_lists_alone_may_stand_beside_the_videos(folder, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(folder, root)
    (root / "gehen" / "two\nlines.mp4").write_bytes(b"x")
    for _again in range(2):
        summary = list_only(read_source([str(root)], output=str(root)), str(root))
        assert summary.lists == {"train": 7}
        assert [reason for _path, reason in summary.failed] == [
            "has a name that a line of a list cannot hold"
        ]
    assert (root / "train.csv").read_text().startswith("gehen/damaged.mp4 0\n")
