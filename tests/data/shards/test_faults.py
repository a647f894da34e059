"""Shards from elsewhere: where they may lie, broken URLs and places, and members stored sparse."""

import io
import os
import tarfile

import pytest
import simplejson

from hiera_video.data.datasets import shards as dataset
from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.records import RecordError
from hiera_video.data.shards.cache import cached_shard
from hiera_video.data.shards.index import scan_shard
from hiera_video.data.shards.members import fetch_shard
from hiera_video.utils import cache


@pytest.fixture(autouse=True)
def no_cache_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("HIERA_VIDEO_SHARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def write_index(folder, file, row=("a.mp4", 512, 9, 0)):
    content = {"version": 1, "shards": [{"file": file, "samples": [list(row)]}]}
    (folder / "train.json").write_text(simplejson.dumps(content))


def cause(path):
    with pytest.raises(DecodeError) as caught:
        open_video(path)
    assert "\n" not in str(caught.value)
    return caught.value.cause


@pytest.mark.parametrize(
    "url",
    [
        "reference://x/{folder}/refs.json",
        "memory://x.tar",
        "local://{folder}/x.tar",
        "zip://x.tar",
        "github://o:r@main/x.tar",
        "ftp://127.0.0.1/x.tar",
        "simplecache::http://127.0.0.1:9/x.tar",
        "file://{folder}/x.tar::reference://y",
        "s3://b/x.tar::zip://y",
        "file:///etc/passwd",
        "file://{folder}/../other/x.tar",
        "file://~/x.tar",
    ],
)
def test_an_index_may_not_name_any_place(tmp_path, url):
    folder = tmp_path / "set"
    folder.mkdir()
    write_index(folder, url.format(folder=folder))
    with pytest.raises(RecordError) as caught:
        dataset.read_index(str(folder), "train")
    assert str(caught.value).startswith(f"{folder}/train.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["reference://x", "zip::file://y.tar", "S9://x/y.tar", "gs://a::b"])
def test_a_list_may_not_either(url):
    with pytest.raises(OSError, match=r"a shard's URL must"):
        cached_shard(url)
    assert "a shard's URL must" in cause(f"{url}::a.mp4@512+9")
    fetch_shard(f"{url}::a.mp4@512+9")


def test_a_file_url_below_the_index_is_read(tmp_path, videos):
    (tmp_path / "sub").mkdir()
    with tarfile.open(tmp_path / "sub" / "train-0.tar", "w") as tar:
        tar.add(videos["h264_b.mp4"], "a.mp4")
    ((sample,), _) = scan_shard(str(tmp_path / "sub" / "train-0.tar"), labelled=False)
    row = (sample.name, sample.offset, sample.size, 0)
    write_index(tmp_path, f"file://{tmp_path}/sub/train-0.tar", row)
    (record,) = dataset.read_index(str(tmp_path), "train")
    with open_video(record.path) as reader:
        assert reader.num_frames == 40


def test_a_damaged_copy_of_a_shard_is_fetched_again_but_not_for_every_video(
    tmp_path, videos, monkeypatch
):
    shard = tmp_path / "train-0.tar"
    with tarfile.open(shard, "w") as tar:
        tar.add(videos["h264_b.mp4"], "a.mp4")
    ((sample,), _) = scan_shard(str(shard), labelled=False)
    url = f"file://{shard}"
    path = f"{url}::a.mp4@{sample.offset}+{sample.size}"
    copy = cached_shard(url)
    os.truncate(copy, sample.offset + 10)
    assert "its shard breaks off" in cause(path)
    assert os.path.exists(copy)  # it was fetched a moment ago: its source may be like this
    monkeypatch.setattr(cache, "FRESH_SEC", 0.0)
    assert "its shard breaks off" in cause(path)
    with open_video(path) as reader:
        assert reader.num_frames == 40


@pytest.mark.parametrize(
    "place",
    [
        ("a.mp4", 2**63, 9),
        ("a.mp4", 10**30, 9),
        ("a.mp4", 512, 2**63),
        ("a.mp4", 512, 10**30),
        ("a.mp4", -5, 9),
        ("a\0.mp4", 512, 9),
        ("\udcff.mp4", 512, 9),
    ],
)
def test_a_place_that_no_file_has_is_a_bad_video(tmp_path, place):
    (tmp_path / "train-0.tar").write_bytes(bytes(2048))
    write_index(tmp_path, "train-0.tar", (*place, 0))
    (record,) = dataset.read_index(str(tmp_path), "train")
    assert cause(record.path)
    fetch_shard(record.path)


@pytest.mark.parametrize(
    "file",
    [
        *("http://[::1", "http://127.0.0.1:port/x.tar", "http://é.\udcff/x.tar", "http:///x.tar"),
        *("x\0.tar", "\udcff.tar", "http://127.0.0.1:9/\0", "https://é" + 99 * "ü" + "/x.tar"),
    ],
)
def test_a_broken_name_of_a_shard_is_a_bad_video(tmp_path, file):
    write_index(tmp_path, file)
    (record,) = dataset.read_index(str(tmp_path), "train")
    assert "its shard" in cause(record.path)
    fetch_shard(record.path)


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, "shards": ' + 100_000 * "[" + 100_000 * "]" + "}",
        '{"version": 1, "shards": [{"file": "x", "samples": [["a", ' + 5000 * "1" + ", 9, 0]]}]}",
        "\x00",
    ],
    ids=["deep", "digits", "nul"],
)
def test_an_index_that_is_not_read_is_one_error(tmp_path, text):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(RecordError, match=r"train\.json"):
        dataset.read_index(str(tmp_path), "train")


def test_a_label_beyond_all_numbers_is_refused(tmp_path):
    write_index(tmp_path, "x.tar", ("a.mp4", 512, 9, 10**30))
    with pytest.raises(RecordError, match="the label must be below 2\\^31"):
        dataset.read_index(str(tmp_path), "train")


def sparse_tar(path, name, real_size):
    """Write a tar file of one GNU-sparse member: no data, and any size (GNU tar, "sparse.c")."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:398] = b"%011o\0" % real_size  # one piece: nothing, at the end
    block[398:410] = b"%011o\0" % 0
    block[483:495] = b"%011o\0" % real_size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path.write_bytes(bytes(block) + bytes(1024))


@pytest.mark.parametrize("ending", ["mp4", "cls", "json"])
def test_a_sparse_member_is_refused_and_never_unpacked(tmp_path, ending):
    path = tmp_path / "train-0.tar"
    sparse_tar(path, f"a.{ending}", 3 << 30)
    with tarfile.open(path) as tar:  # tarfile would give 3 GiB of zeros
        assert tar.getmembers()[0].size == 3 << 30
    samples, problems = scan_shard(str(path), labelled=True)
    assert samples == []
    assert problems == [
        f"{path}: sample 'a': must be stored whole, got a.{ending} sparse. Try tar without "
        "--sparse."
    ]
    with pytest.raises(RecordError, match="must be stored whole"):
        dataset.read_index(str(tmp_path), "train")
    assert cause(f"{path}::a.{ending}@512+{3 << 30}")


def test_notes_of_any_size_are_not_read(tmp_path):
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (("a.mp4", b"x"), ("a.cls", b"0" * (2 << 20))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    _, problems = scan_shard(str(path), labelled=True)
    assert problems == [f"{path}: sample 'a': its .cls and .json must be at most 1048576 bytes."]
