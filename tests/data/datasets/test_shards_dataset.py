"""The data set of tar shards: what is read, numbered and refused."""

import pytest
import simplejson
import webdataset

from hiera_video.data.datasets import shards
from hiera_video.data.records import NO_LABEL, RecordError
from hiera_video.data.shards.index import Shard, scan_shard, write_index
from hiera_video.data.shards.members import parse_member


def write_shard(path, samples):
    """Write a shard with the library's own writer; it makes the bytes of .cls and .json."""
    with webdataset.TarWriter(str(path)) as tar:
        for key, sample in samples.items():
            tar.write({"__key__": key, **sample})
    return path


@pytest.fixture
def root(tmp_path):
    """Two shards of train and one of val, and no index."""
    write_shard(tmp_path / "train-000000.tar", {"a b": {"mp4": b"A", "cls": 1}})
    write_shard(
        tmp_path / "train-000010.tar",
        {"kůň": {"webm": b"BB", "json": {"label": 0}}, "c.x": {"MP4": b"CCC", "cls": 2}},
    )
    write_shard(tmp_path / "val-0.tar", {"v": {"mkv": b"V", "cls": 0}})
    return tmp_path


def problems_of(root, split="train", **options):
    with pytest.raises(RecordError) as caught:
        shards.read_index(str(root), split, **options)
    return str(caught.value).splitlines()


def test_samples_are_those_of_the_shards_in_their_order(root):
    records = shards.read_index(str(root), "train", num_classes=3)
    members = [parse_member(record.path) for record in records]
    assert [member.name for member in members] == ["a b.mp4", "kůň.webm", "c.x.MP4"]
    assert [record.label for record in records] == [1, 0, 2]
    assert [record.video_index for record in records] == [0, 1, 2]
    for member, content in zip(members, (b"A", b"BB", b"CCC"), strict=True):
        with open(member.shard, "rb") as file:
            file.seek(member.offset)
            assert file.read(member.size) == content
    assert len(shards.read_index(str(root), "val")) == 1


def test_an_index_gives_the_same_records_and_may_say_where_the_shards_are(root, tmp_path):
    expected = shards.read_index(str(root), "train")
    names = ["train-000000.tar", "train-000010.tar"]
    listed = [Shard(name, scan_shard(str(root / name), labelled=True)[0]) for name in names]
    write_index(str(root / "train.json"), listed)
    assert shards.read_index(str(root), "train") == expected
    listed = [Shard(f"s3://bucket/{shard.file}", shard.samples) for shard in listed]
    write_index(str(root / "train.json"), listed)
    paths = [record.path for record in shards.read_index(str(root), "train")]
    assert paths == [r.path.replace(str(root), "s3://bucket") for r in expected]


@pytest.mark.parametrize(
    ("prefix", "start"),
    [
        ("https://host/my%20data/", "https://host/my%20data/train%20%C3%A9-1.tar::"),
        ("s3://bucket/data", "s3://bucket/data/train é-1.tar::"),
        ("/else where", "/else where/train é-1.tar::"),
    ],
)
def test_a_prefix_is_the_place_of_the_shards(root, prefix, start):
    samples, _ = scan_shard(str(root / "train-000000.tar"), labelled=True)
    write_index(str(root / "train.json"), [Shard("train é-1.tar", samples)])
    (record,) = shards.read_index(str(root), "train", path_prefix=prefix)
    assert record.path.startswith(start)


def test_a_wrong_size_of_the_cache_is_told_at_once(root, monkeypatch):
    samples, _ = scan_shard(str(root / "train-000000.tar"), labelled=True)
    write_index(str(root / "train.json"), [Shard("http://host/x.tar", samples)])
    monkeypatch.setenv("HIERA_VIDEO_SHARD_CACHE_GIB", "much")
    with pytest.raises(ValueError, match="HIERA_VIDEO_SHARD_CACHE_GIB must be a number above 0"):
        shards.read_index(str(root), "train")


def test_pretraining_needs_no_labels(root):
    write_shard(root / "train-000011.tar", {"d": {"mp4": b"D"}, "e": {"mp4": b"E", "cls": "?"}})
    records = shards.read_index(str(root), "train", labelled=False, num_classes=1)
    assert [record.label for record in records] == [NO_LABEL] * 5


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"mp4": b"D"}, "must have a label in .cls or .json, got none"),
        ({"mp4": b"D", "cls": "jump"}, "whole number, got b'jump'"),
        ({"mp4": b"D", "json": {"class": 1}}, 'a whole number as "label", got None'),
        ({"mp4": b"D", "json": {"label": True}}, "got True"),
        ({"mp4": b"D", "json": b"{"}, "its .json must be json"),
        ({"mp4": b"D", "webm": b"D", "cls": 0}, "one video, got d é.mp4, d é.webm"),
        ({"txt": b"D", "cls": 0}, "must have a video, got none"),
    ],
)
def test_a_sample_that_is_not_a_video_with_a_label_is_named(root, sample, words):
    write_shard(root / "train-000011.tar", {"good": {"mp4": b"G", "cls": 0}, "d é": sample})
    (problem,) = problems_of(root)
    assert problem.startswith(f"{root}/train-000011.tar: sample 'd é': ")
    assert words in problem


def test_what_is_no_sample_is_passed_over(root):
    write_shard(root / "val-1.tar", {"__note__": {"json": {}}, "readme": {"txt": "x"}})
    assert len(shards.read_index(str(root), "val")) == 1


@pytest.mark.parametrize("indexed", [False, True])
def test_labels_out_of_range_are_named(root, indexed):
    write_shard(root / "train-000011.tar", {"d": {"mp4": b"D", "cls": -2}})
    if indexed:
        names = ["train-000000.tar", "train-000010.tar", "train-000011.tar"]
        listed = [Shard(name, scan_shard(str(root / name), labelled=True)[0]) for name in names]
        write_index(str(root / "train.json"), listed)
    first, second = problems_of(root, num_classes=2)
    assert first.startswith(f"{root}/train-000010.tar: c.x.MP4: the label must be in 0..1")
    assert second.startswith(f"{root}/train-000011.tar: d.mp4: the label must be 0 or more, got -2")


def test_an_index_without_labels_serves_pretraining_alone(root):
    name = "train-000000.tar"
    write_index(
        str(root / "train.json"), [Shard(name, scan_shard(str(root / name), labelled=False)[0])]
    )
    assert len(shards.read_index(str(root), "train", labelled=False)) == 1
    assert "must have a label, got none. Try TASK ssl" in problems_of(root)[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "must hold an index of shards"),
        ({"shards": {}}, "must hold an index of shards"),
        ({"version": 7, "shards": []}, "must be of version 1, got 7"),
        ({"version": 1, "shards": []}, "must hold videos, got none"),
        ({"version": 1, "shards": [{"file": "a.tar"}]}, "shard 0 must be"),
        ({"version": 1, "shards": ["a.tar"]}, "shard 0 must be"),
        ({"version": 1, "shards": [{"file": "a.tar", "samples": [["a.mp4", 1, 2]]}]}, "shard 0"),
        ({"version": 1, "shards": [{"file": "a", "samples": [["a", "1", 2, 3]]}]}, "shard 0"),
    ],
)
def test_an_index_of_another_shape(root, content, words):
    (root / "train.json").write_text(simplejson.dumps(content))
    assert words in problems_of(root)[0]


def test_an_index_that_is_no_json(root):
    (root / "train.json").write_text('{"version": 1,\n')
    assert problems_of(root)[0].startswith(f"{root}/train.json:")
    (root / "train.json").write_bytes(b'"\xff"')
    assert "UTF-8" in problems_of(root)[0]


def test_a_split_without_shards_and_files_that_are_none(root):
    assert "test.json" in problems_of(root, "test")[0]
    assert "DATA.PATH_TO_DATA_DIR" in problems_of("")[0]
    (root / "test-0.tar").write_bytes(b"no tar file" * 100)
    assert problems_of(root, "test")[0].startswith(f"{root}/test-0.tar must be a tar file")


def test_class_names_are_a_file_beside_the_shards(root):
    assert shards.class_names(str(root)) is None
    (root / "classes.txt").write_text("a\nb\n")
    assert shards.class_names(str(root)) == ["a", "b"]
