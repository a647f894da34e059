"""What is written into shards, and that writing can be stopped, repeated and refused."""

import os

import numpy as np
import pytest
import simplejson
import webdataset

from hiera_video.data.datasets import shards as dataset
from hiera_video.data.decoders import open_video
from hiera_video.data.records import NO_LABEL, VideoRecord
from hiera_video.data.shards.members import parse_member
from hiera_video.data.shards.writer import plan_shards, write_shards
from hiera_video.utils.errors import UserError


@pytest.fixture(scope="module")
def records(index_frames, make_video, tmp_path_factory):
    """Nine videos of three classes, with dots, spaces and letters in their names."""
    folder = tmp_path_factory.mktemp("videos")
    names = ["a.mp4", "my clip.v2.mp4", "kůň (1).avi", "x.mkv", "ž" * 90 + ".mp4"]
    names += ["sub/a.mp4", "b.MP4", "#1: c.mp4", "d.mp4"]
    (folder / "sub").mkdir()
    frames_THWC = index_frames(2 * len(names))
    for place, name in enumerate(names):
        make_video(folder / name, frames_THWC[2 * place : 2 * place + 2])
    return [VideoRecord(str(folder / name), place % 3, place) for place, name in enumerate(names)]


@pytest.fixture
def shard_bytes(records):
    return int(sum(os.path.getsize(record.path) for record in records) / 3)


def write(records, folder, shard_bytes, split="train", seed=0, **options):
    plan = plan_shards(records, split, shard_bytes=shard_bytes, seed=seed)
    return write_shards(plan, str(folder), split, **options)


def shards_in(folder):
    return sorted(path for path in folder.iterdir() if path.suffix == ".tar")


def contents(folder):
    """Return label by the bytes of the video, as the project reads its shards."""
    found = {}
    for record in dataset.read_index(str(folder), "train"):
        member = parse_member(record.path)
        with open(member.shard, "rb") as file:
            file.seek(member.offset)
            found[file.read(member.size)] = record.label
    return found


def bytes_of(record):
    with open(record.path, "rb") as file:
        return file.read()


def test_every_video_is_in_a_shard_with_its_label(records, tmp_path, shard_bytes):
    assert write(records, tmp_path, shard_bytes) == []
    assert 3 <= len(shards_in(tmp_path)) <= 5
    assert contents(tmp_path) == {bytes_of(record): record.label for record in records}
    for record in dataset.read_index(str(tmp_path), "train", num_classes=3):
        with open_video(record.path) as reader:
            assert reader.num_frames == 2


def test_the_index_says_what_the_shards_do(records, tmp_path, shard_bytes):
    write(records, tmp_path, shard_bytes)
    indexed = dataset.read_index(str(tmp_path), "train")
    (tmp_path / "train.json").unlink()
    assert dataset.read_index(str(tmp_path), "train") == indexed


def test_the_webdataset_library_reads_them(records, tmp_path, shard_bytes):
    write(records, tmp_path, shard_bytes, data_dir=os.path.dirname(records[0].path))
    urls = [str(path) for path in shards_in(tmp_path)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == len(records)
    by_source = {sample["json"]["source"]: sample for sample in samples}
    for record in records:
        name = record.path[len(os.path.dirname(records[0].path)) + 1 :]
        sample = by_source[name]
        assert sample["cls"] == sample["json"]["label"] == record.label
        assert sample[os.path.splitext(name)[1][1:].lower()] == bytes_of(record)


def test_shards_of_the_librarys_shard_writer_are_read(records, tmp_path):
    pattern = f"{tmp_path}/train-%04d.tar"
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0) as writer:
        for record in records:
            writer.write(
                {"__key__": f"{record.video_index}", "mp4": bytes_of(record), "cls": record.label}
            )
    found = dataset.read_index(str(tmp_path), "train")
    assert [record.label for record in found] == [record.label for record in records]
    for record, original in zip(found, records, strict=True):
        with open_video(record.path) as inside, open_video(original.path) as alone:
            np.testing.assert_array_equal(inside.frames_at([0, 1]), alone.frames_at([0, 1]))


def test_training_videos_are_shuffled_by_the_seed_and_the_others_in_order(records):
    orders = []
    for split, seed in (("train", 0), ("train", 0), ("train", 1), ("val", 0), ("test", 5)):
        plan = plan_shards(records, split, shard_bytes=1 << 30, seed=seed)
        (videos,) = plan.shards.values()
        orders.append([video.record.video_index for video in videos])
    assert orders[0] == orders[1] != orders[2]
    assert orders[3] == orders[4] == list(range(9)) != orders[0]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(9))


def test_names_fit_and_are_each_others(records, tmp_path, shard_bytes):
    write(records, tmp_path, shard_bytes)
    members = [parse_member(r.path).name for r in dataset.read_index(str(tmp_path), "train")]
    assert len(set(members)) == len(members)
    assert max(len(name.encode()) for name in members) <= 100
    assert {"00000001_my clip_v2.mp4", "00000002_kůň _1.avi", "00000006_b.mp4"} < set(members)


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_bytes(records, tmp_path, shard_bytes):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    write(records, whole, shard_bytes)

    class StopError(Exception):
        pass

    done = []

    def stop(num_bytes):
        done.append(num_bytes)
        if len(done) == 6:
            raise StopError

    with pytest.raises(StopError):
        write(records, broken, shard_bytes, progress=stop)
    assert 1 <= len(shards_in(broken)) < len(shards_in(whole))
    assert sorted(broken.iterdir()) == shards_in(broken)  # no index, and nothing in part
    first = shards_in(broken)[0].stat().st_mtime_ns
    done = []
    write(records, broken, shard_bytes, progress=done.append)
    assert sum(done) == sum(len(bytes_of(record)) for record in records)
    assert shards_in(broken)[0].stat().st_mtime_ns == first
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in broken.iterdir())
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_bad_videos_are_left_out_and_named_also_when_it_goes_on(records, tmp_path, shard_bytes):
    noise, empty = tmp_path / "noise.mp4", tmp_path / "empty.mp4"
    noise.write_bytes(b"no video" * 100)
    empty.write_bytes(b"")
    paths = [str(noise), str(empty), str(tmp_path / "gone.mp4"), f"{records[0].path[:-4]}.txt"]
    bad = [VideoRecord(path, 0, len(records) + place) for place, path in enumerate(paths)]
    folder = tmp_path / "shards"
    folder.mkdir()
    for _ in range(2):
        reasons = dict(write([*records, *bad], folder, shard_bytes))
        assert set(reasons) == set(paths)
        assert "not a readable video" in reasons[paths[0]]
        assert reasons[paths[1]] == "is empty (0 bytes)."
        assert reasons[paths[2]] == "no such file."
        assert "'.txt'" in reasons[paths[3]]
        assert len(dataset.read_index(str(folder), "train")) == len(records)
        (folder / "train.json").unlink()


def test_shards_from_shards(records, tmp_path, shard_bytes):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    write(records, first, shard_bytes)
    assert write(dataset.read_index(str(first), "train"), second, shard_bytes // 2) == []
    assert len(shards_in(second)) > len(shards_in(first))
    assert contents(second) == contents(first)


def test_without_labels(records, tmp_path, shard_bytes):
    unlabelled = [VideoRecord(r.path, NO_LABEL, r.video_index) for r in records]
    write(unlabelled, tmp_path, shard_bytes)
    assert len(dataset.read_index(str(tmp_path), "train", labelled=False)) == len(records)
    (sample,) = list(webdataset.WebDataset(str(shards_in(tmp_path)[0]), shardshuffle=False))[:1]
    assert "cls" not in sample
    assert simplejson.loads(sample["json"]).keys() == {"source"}


def test_shards_that_are_there_are_not_written_over(records, tmp_path, shard_bytes):
    write(records, tmp_path, shard_bytes)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"without shards of train.*has train\.json"):
        write(records, tmp_path, shard_bytes)
    (tmp_path / "train.json").rename(tmp_path / "kept")
    others = [VideoRecord(r.path, r.label + 1, r.video_index) for r in records]
    for other, options in ((others, {}), (records, {"seed": 1}), (records[:4], {})):
        with pytest.raises(UserError, match="must be a shard that the same command wrote"):
            write(other, tmp_path, shard_bytes, **options)
    (tmp_path / "kept").rename(tmp_path / "train.json")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    write(records, tmp_path, shard_bytes, split="val")  # another split may lie beside it


def test_a_folder_that_cannot_be_written_to_and_a_list_of_bad_videos(records, tmp_path):
    (tmp_path / "full").symlink_to("/proc")
    with pytest.raises(UserError, match=r"train-000000\.tar cannot be written"):
        write(records, tmp_path / "full", 1 << 30)
    gone = [VideoRecord(str(tmp_path / "gone.mp4"), 0, 0)]
    with pytest.raises(UserError, match="must have a video that can be opened, got none"):
        write(gone, tmp_path, 1 << 30)
