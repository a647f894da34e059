import json

import pytest

from hiera_video.data.checks.clean_list import (
    SplitList,
    bad_videos,
    unlistable,
    write_class_names,
    write_clean,
    write_clean_csv,
    write_table,
)
from hiera_video.data.datasets import kinetics, ssv2
from hiera_video.data.records import NO_LABEL, VideoRecord

ODD_NAMES = [
    "/d/a b.mp4",
    "/d/žluťoučký.mp4",
    "/d/clip 7",
    "/d/clip, 7",
    "/d/ends in a comma,",
    "/d/ends in a space ",
    '/d/with "quotes".mp4',
    '/d/"quoted"',
    '/d/a "b" ',
    "http://host/a.mp4",
]


def split_of(records, name="train", dataset="kinetics", data_dir="", class_names=None):
    return SplitList(name, dataset, str(data_dir), records, 3, class_names)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_clean_csv_reads_back_whatever_the_paths(tmp_path, labelled) -> None:
    records = [
        VideoRecord(path, i if labelled else NO_LABEL, i) for i, path in enumerate(ODD_NAMES)
    ]
    write_clean_csv(str(tmp_path / "val.csv"), records)
    found = kinetics.read_index(
        str(tmp_path), "val", path_prefix="/another/folder", labelled=labelled
    )
    assert found == records


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clean_csv("train.csv", [VideoRecord("videos/a.mp4", 0, 0)])
    (record,) = kinetics.read_index(str(tmp_path), "train")
    assert record.path == str(tmp_path / "videos/a.mp4")


def test_some_names_no_list_can_hold() -> None:
    assert (
        unlistable("/d/two\nlines.mp4") == "has a line break in its name, which no list can hold."
    )
    assert "not UTF-8" in unlistable("/d/caf\udce9.mp4")
    assert unlistable("/d/café.mp4") == ""
    records = [VideoRecord("/d/a\r.mp4", 0, 0), VideoRecord("/d/b.mp4", 1, 1)]
    bad = bad_videos(split_of(records), {record.path: "" for record in records})
    assert list(bad) == ["/d/a\r.mp4"]


def test_bad_videos_keep_the_order_of_the_list_and_are_left_out(tmp_path) -> None:
    records = [VideoRecord(f"/d/{name}.mp4", i % 2, i) for i, name in enumerate("cabca")]
    split = split_of(records, class_names=["left", "right"])
    reasons = {"/d/a.mp4": "is empty.", "/d/b.mp4": "", "/d/c.mp4": "no such file."}
    bad = bad_videos(split, reasons)
    assert list(bad.items()) == [("/d/c.mp4", "no such file."), ("/d/a.mp4", "is empty.")]
    assert write_clean(str(tmp_path), split, bad) == str(tmp_path / "train.csv")
    assert kinetics.read_index(str(tmp_path), "train") == [VideoRecord("/d/b.mp4", 0, 0)]
    assert kinetics.class_names(str(tmp_path)) == ["left", "right"]


def test_where_all_are_bad_no_clean_list_is_left(tmp_path) -> None:
    split = split_of([VideoRecord("/d/a.mp4", 0, 0)])
    assert write_clean(str(tmp_path), split, {}) == str(tmp_path / "train.csv")
    assert write_clean(str(tmp_path), split, {"/d/a.mp4": "is empty."}) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split_name", ["train", "val", "test"])
@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_ssv2_stays_json(tmp_path, split_name, prefix) -> None:
    data_dir, folder = tmp_path / "data", tmp_path / "clean"
    data_dir.mkdir()
    folder.mkdir()
    labels = {"Holding something": "0", "Poking something": "1"}
    entries = [
        {"id": str(i), "label": "x", "template": "Poking [something]", "placeholders": ["é"]}
        for i in range(3)
    ]
    name = "train" if split_name == "train" else "validation"
    (data_dir / f"{prefix}labels.json").write_text(json.dumps(labels), encoding="utf-8")
    (data_dir / f"{prefix}{name}.json").write_text(json.dumps(entries), encoding="utf-8")
    records = ssv2.read_index(str(data_dir), split_name, path_prefix="/videos")
    split = split_of(records, split_name, "ssv2", data_dir)
    assert split.file_name == f"{name}.json"
    file = write_clean(str(folder), split, {records[1].path})
    assert json.loads((folder / f"{name}.json").read_text()) == [entries[0], entries[2]]
    assert file == str(folder / f"{name}.json")
    found = ssv2.read_index(str(folder), split_name, path_prefix="/videos")
    assert [(r.path, r.label) for r in found] == [("/videos/0.webm", 1), ("/videos/2.webm", 1)]


def test_ssv2_without_labels_stays_so(tmp_path) -> None:
    (tmp_path / "train.json").write_text('[{"id": 5}]', encoding="utf-8")
    (tmp_path / "clean").mkdir()
    records = ssv2.read_index(str(tmp_path), "train", labelled=False)
    write_clean(str(tmp_path / "clean"), split_of(records, dataset="ssv2", data_dir=tmp_path), {})
    assert [p.name for p in (tmp_path / "clean").iterdir()] == ["train.json"]


def test_class_names_and_tables_are_plain_files(tmp_path) -> None:
    write_class_names(str(tmp_path / "classes.txt"), ["a b", "c"])
    assert kinetics.class_names(str(tmp_path)) == ["a b", "c"]
    write_table(str(tmp_path / "bad.csv"), ["path", "reason"], [("/d/a, b.mp4", 'not "it"')])
    assert (tmp_path / "bad.csv").read_text() == 'path,reason\n"/d/a, b.mp4","not ""it"""\n'
