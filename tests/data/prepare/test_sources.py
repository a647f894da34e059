import os

import pytest
import simplejson

from hiera_video.data.prepare.folders import Entry
from hiera_video.data.prepare.sources import read_source
from hiera_video.data.records import RecordError
from hiera_video.utils.errors import UserError

HEADER = "label,youtube_id,time_start,time_end,split\n"


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(source, folder):
    return [
        (os.path.relpath(entry.path, folder), entry.split, entry.label) for entry in source.entries
    ]


def test_class_folders_are_all_train(tmp_path):
    touch(tmp_path, "b ü/2.mp4", "b ü/deep/1.AVI", "a/x.webm", "a/notes.txt", "a/.hidden.mp4")
    touch(tmp_path, ".trash/y.mp4", "readme.md")
    (tmp_path / "empty").mkdir()
    source = read_source([str(tmp_path)])
    assert source.kind == "class folders"
    assert found(source, tmp_path) == [
        ("a/x.webm", "train", "a"),
        ("b ü/2.mp4", "train", "b ü"),
        ("b ü/deep/1.AVI", "train", "b ü"),
    ]
    assert source.lacking == []


def test_videos_beside_class_folders_are_named(tmp_path):
    touch(tmp_path, "a/x.mp4", "loose.mp4")
    source = read_source([str(tmp_path)])
    assert len(source.entries) == 1
    assert source.lacking == [
        (str(tmp_path / "loose.mp4"), "lies beside the class folders, not in one")
    ]


def test_split_folders_are_splits(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "validation/a/3.mp4", "test/b/4.mp4")
    source = read_source([str(tmp_path)])
    assert source.splits() == ["train", "val", "test"]
    assert ("validation/a/3.mp4", "val", "a") in found(source, tmp_path)
    touch(tmp_path, "annotations/list.txt")
    assert len(read_source([str(tmp_path)]).entries) == 4


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "car/1.mp4", "plane/2.mp4", "train/3.mp4")
    source = read_source([str(tmp_path)])
    assert [label for _path, _split, label in found(source, tmp_path)] == ["car", "plane", "train"]
    assert source.splits() == ["train"]


def test_videos_without_classes_have_no_labels(tmp_path):
    touch(tmp_path, "1.mp4", "2.mp4")
    source = read_source([str(tmp_path)])
    assert source.kind == "a folder without classes"
    assert found(source, tmp_path) == [("1.mp4", "train", None), ("2.mp4", "train", None)]
    (tmp_path / "train").mkdir()
    (tmp_path / "1.mp4").rename(tmp_path / "train" / "1.mp4")
    (tmp_path / "2.mp4").rename(tmp_path / "train" / "2.mp4")
    assert {label for _path, _split, label in found(read_source([str(tmp_path)]), tmp_path)} == {
        None
    }


def test_the_output_is_no_source(tmp_path):
    touch(tmp_path, "a/1.mp4", "prepared/videos/a/1.mp4")
    source = read_source([str(tmp_path)], output=str(tmp_path / "prepared"))
    assert found(source, tmp_path) == [("a/1.mp4", "train", "a")]
    touch(tmp_path, "a/out/videos/x.mp4")
    source = read_source([str(tmp_path / "a")], output=str(tmp_path / "a" / "out"))
    assert found(source, tmp_path) == [("a/1.mp4", "train", None)]


def test_links_are_followed_and_circles_end(tmp_path):
    touch(tmp_path, "far/x/1.mp4")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "a").symlink_to(tmp_path / "far" / "x")
    (tmp_path / "far" / "x" / "again").symlink_to(tmp_path / "far" / "x")
    source = read_source([str(tmp_path / "near")])
    assert found(source, tmp_path / "near") == [("a/1.mp4", "train", "a")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/1.mp4")
    (tmp_path / "b").chmod(0)
    with pytest.raises(UserError, match="b must be a folder that can be read"):
        read_source([str(tmp_path)])
    (tmp_path / "b").chmod(0o755)


def test_lists_are_read_with_their_numbers_and_names(tmp_path):
    touch(tmp_path, "v/a b.mp4", "v/c.mp4")
    (tmp_path / "train.csv").write_text("v/a b.mp4 3\nv/gone.mp4 0\n")
    (tmp_path / "val.csv").write_text("v/c.mp4,1\n")
    (tmp_path / "classes.txt").write_text("k\nl\nm\nn\n")
    source = read_source([str(tmp_path)])
    assert found(source, tmp_path) == [("v/a b.mp4", "train", 3), ("v/c.mp4", "val", 1)]
    assert source.lacking == [(str(tmp_path / "v" / "gone.mp4"), "no such file")]
    assert source.class_names == ["k", "l", "m", "n"]
    assert source.root == str(tmp_path / "v")
    alone = read_source([str(tmp_path / "val.csv")], videos=str(tmp_path))
    assert found(alone, tmp_path) == [("v/c.mp4", "val", 1)]


def test_lists_without_labels(tmp_path):
    touch(tmp_path, "a.mp4", "b.webm")
    (tmp_path / "train.csv").write_text("a.mp4\nb.webm\n")
    assert [entry.label for entry in read_source([str(tmp_path)]).entries] == [None, None]


@pytest.mark.parametrize("layout", ["", "train/", "class x/"])
def test_official_kinetics_lists_find_their_videos(tmp_path, layout):
    name = "-q-id_1_000007_000017.mp4"
    touch(tmp_path, f"videos/{layout}{name}", "videos/val/zz_000000_000010.webm")
    (tmp_path / "k400.csv").write_text(
        f'{HEADER}"abseiling, slowly",-q-id_1,7,17,train\nzumba,gone,1,11,train\n'
        "zumba,zz,0,10,validate\nzumba,zz,0,10,validate\n"
    )
    source = read_source([str(tmp_path / "k400.csv")], videos=str(tmp_path / "videos"))
    assert source.kind == "official Kinetics csv"
    assert [(e.split, e.label) for e in source.entries] == [
        ("train", "abseiling, slowly"),
        ("val", "zumba"),
    ]
    assert source.entries[0].path == str(tmp_path / "videos" / f"{layout}{name}")
    assert source.class_names == ["abseiling, slowly", "zumba"]
    assert source.lacking == [(str(tmp_path / "videos" / "gone_000001_000011.mp4"), "no such file")]


def test_official_kinetics_lists_that_cannot_be_right(tmp_path):
    touch(tmp_path, "x_000000_000010.mp4")
    file = tmp_path / "train.csv"
    for line in ("x,0,10,train", "a,x,zero,10,train", "a,x,0,10,holiday", ",x,0,10,train"):
        file.write_text(f"{HEADER}{line}\n")
        with pytest.raises(RecordError, match=r"train.csv:2: a line must be `label,youtube_id"):
            read_source([str(file)])
    file.write_text(f"{HEADER}a,other,0,10,train\n")
    with pytest.raises(UserError, match=r"--videos must be .*other_000000_000010.mp4.* none of"):
        read_source([str(file)])
    file.write_text(HEADER)
    with pytest.raises(UserError, match="a header alone"):
        read_source([str(file)])
    file.write_bytes(HEADER.encode() + b"\xff,x,0,10,train\n")
    with pytest.raises(RecordError, match="in UTF-8"):
        read_source([str(file)])


def test_the_split_of_an_official_list_may_be_its_name(tmp_path):
    touch(tmp_path, "x_000000_000010.mp4")
    (tmp_path / "validate.csv").write_text("label,youtube_id,time_start,time_end\na,x,0,10\n")
    source = read_source([str(tmp_path / "validate.csv")])
    assert [entry.split for entry in source.entries] == ["val"]


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_something_something(tmp_path, prefix):
    touch(tmp_path, "20bn-something-something-v2/1.webm", "20bn-something-something-v2/2.webm")
    contents = {
        "labels": {"Pushing something": "0", "Lifting something": "1"},
        "train": [
            {"id": "1", "template": "Lifting [something]"},
            {"id": "9", "template": "Pushing [something]"},
        ],
        "validation": [{"id": "2", "template": "Pushing [something]"}],
    }
    for name, content in contents.items():
        (tmp_path / f"{prefix}{name}.json").write_text(simplejson.dumps(content))
    source = read_source([str(tmp_path)])
    folder = tmp_path / "20bn-something-something-v2"
    assert found(source, folder) == [("1.webm", "train", 1), ("2.webm", "val", 0)]
    assert source.class_names == ["Pushing something", "Lifting something"]
    assert source.lacking == [(str(folder / "9.webm"), "no such file")]
    one = read_source([str(tmp_path / f"{prefix}train.json")], videos=str(folder))
    assert one.entries == source.entries


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["gone"], "does not exist"),
        (["a", "train.csv"], "one folder, or one or more files"),
        (["empty"], "must hold videos, got none"),
        (["mine.csv"], "named train.csv, val.csv or test.csv"),
        (["train.csv", "official.csv"], "csv files of one form"),
    ],
)
def test_sources_that_cannot_be_told(tmp_path, names, words):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "empty").mkdir()
    for name in ("train.csv", "mine.csv"):
        (tmp_path / name).write_text("a/1.mp4 0\n")
    (tmp_path / "official.csv").write_text(HEADER)
    with pytest.raises(UserError, match=words):
        read_source([str(tmp_path / name) for name in names])
    with pytest.raises(UserError, match="--videos must be the folder"):
        read_source([str(tmp_path / "train.csv")], videos=str(tmp_path / "gone"))


def test_a_relative_source_is_known_from_anywhere(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.mp4")
    monkeypatch.chdir(tmp_path)
    assert read_source(["."]).entries == [Entry(str(tmp_path / "a" / "1.mp4"), "train", "a")]
