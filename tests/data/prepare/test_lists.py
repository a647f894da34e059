import pytest

from hiera_video.data.datasets import kinetics
from hiera_video.data.prepare.folders import Entry, Source
from hiera_video.data.prepare.lists import label_numbers, number_classes, write_lists
from hiera_video.utils.errors import UserError


def source_of(*labels, splits=("train", "val"), class_names=None):
    entries = [
        Entry(f"/data/{split}{place}.mp4", split, label)
        for split in splits
        for place, label in enumerate(labels)
    ]
    return Source("a test", "/data", entries, class_names)


def test_lists_read_back(tmp_path):
    pairs = [
        *(("videos/a b.mp4", 0), ("videos/Übung, 3.mp4", 1), ('"quoted".mp4', 2)),
        *(("~home.mp4", 0), (" space.mp4", 1), ("/else/where 7.mp4", 2), ("videos/日本.mp4", 0)),
    ]
    lists = write_lists(str(tmp_path), {"train": pairs, "val": pairs[:1]}, ["x y", "ä", "z"])
    assert lists == {"train": 7, "val": 1, "test": 1}
    records = kinetics.read_index(str(tmp_path), "train", num_classes=3)
    expected = [path if path[0] == "/" else f"{tmp_path}/{path}" for path, _label in pairs]
    assert [record.path for record in records] == expected
    assert [record.label for record in records] == [label for _path, label in pairs]
    assert kinetics.class_names(str(tmp_path)) == ["x y", "ä", "z"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("classes.txt", "test.csv", "train.csv", "val.csv"),
    ]


def test_lists_without_labels_read_back(tmp_path):
    assert write_lists(str(tmp_path), {"train": [("videos/a 1.mp4", -1)]}, None) == {"train": 1}
    (record,) = kinetics.read_index(str(tmp_path), "train", labelled=False)
    assert record.path == f"{tmp_path}/videos/a 1.mp4"
    assert not (tmp_path / "classes.txt").exists()


def test_a_path_that_a_line_cannot_hold_leaves_the_old_list(tmp_path):
    write_lists(str(tmp_path), {"train": [("a.mp4", 0)]}, None)
    with pytest.raises(UserError, match="train.csv"):
        write_lists(str(tmp_path), {"train": [("a\nb.mp4", 0)]}, None)
    assert (tmp_path / "train.csv").read_text() == "a.mp4 0\n"
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]


def test_the_test_list_is_val_again_unless_there_is_one(tmp_path):
    write_lists(str(tmp_path), {"val": [("a.mp4", 0)]}, None)
    write_lists(str(tmp_path), {"val": [("b.mp4", 0)]}, None)
    assert (tmp_path / "test.csv").read_text() == "b.mp4 0\n"
    write_lists(str(tmp_path), {"test": [("c.mp4", 0)]}, None)
    write_lists(str(tmp_path), {"val": [("d.mp4", 0)]}, None)
    assert (tmp_path / "test.csv").read_text() == "c.mp4 0\n"


def test_a_split_without_videos_has_no_list(tmp_path):
    assert write_lists(str(tmp_path), {"train": [("a.mp4", 0)], "val": []}, None) == {"train": 1}


def test_classes_are_numbered_by_the_alphabet(tmp_path):
    source = source_of("b", "a", "c  d")
    names = number_classes(source, str(tmp_path))
    assert names == ["a", "b", "c d"]
    assert label_numbers(source.entries, names) == [1, 0, 2] * 2


def test_a_class_without_videos_has_its_number_too(tmp_path):
    assert number_classes(source_of("c", class_names=["c", "b"]), str(tmp_path)) == ["b", "c"]


def test_numbers_of_the_source_are_kept(tmp_path):
    source = source_of(5, 0, class_names=list("abcdef"))
    names = number_classes(source, str(tmp_path))
    assert names == list("abcdef")
    assert label_numbers(source.entries, names) == [5, 0] * 2
    assert label_numbers(source_of(None).entries, None) == [-1, -1]


def test_a_file_of_classes_decides(tmp_path):
    (tmp_path / "kinetics.txt").write_text("c\nb\n\na\n", encoding="utf-8")
    source = source_of("a", "c")
    names = number_classes(source, str(tmp_path), str(tmp_path / "kinetics.txt"))
    assert names == ["c", "b", "a"]
    assert label_numbers(source.entries, names) == [2, 0] * 2
    with pytest.raises(UserError, match=r"--classes must name all classes.*without 'd'"):
        number_classes(source_of("d"), str(tmp_path), str(tmp_path / "kinetics.txt"))
    with pytest.raises(UserError, match="--classes must be a text file"):
        number_classes(source, str(tmp_path), str(tmp_path / "gone.txt"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="a class name per line"):
        number_classes(source, str(tmp_path), str(tmp_path / "empty.txt"))


def test_a_second_source_keeps_the_numbers_of_the_first(tmp_path):
    write_lists(str(tmp_path), {"train": [("a.mp4", 2)]}, ["a", "b", "c"])
    assert number_classes(source_of("b", splits=["val"]), str(tmp_path)) == ["a", "b", "c"]
    with pytest.raises(UserError, match=r"OUTPUT must keep the class numbers of its train.csv"):
        number_classes(source_of("aa", "c", splits=["val"]), str(tmp_path))
    # With all splits at hand there is nothing to contradict.
    assert number_classes(source_of("aa", "c"), str(tmp_path)) == ["aa", "c"]
