"""Videos in shards decode as their files do; cache and faults of shards."""

import gc
import http.server
import multiprocessing
import os
import threading
import time
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import webdataset

from hiera_video.data.checks.scan import ScanSettings, check_video
from hiera_video.data.datasets import shards as dataset
from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.decoders._reader import fetch_file
from hiera_video.data.sampling import ClipSpec
from hiera_video.data.shards import cache as shard_cache
from hiera_video.data.shards import members
from hiera_video.data.shards.index import Shard, scan_shard, write_index
from hiera_video.data.shards.members import (
    HeldFile,
    Member,
    fetch_shard,
    file_behind,
    parse_member,
)
from hiera_video.data.shards.writer import plan_shards, write_shards
from hiera_video.data.workers.process import Job
from hiera_video.utils.cache import make_room

NUM_FRAMES = 8


@pytest.fixture(scope="module")
def files(index_frames, make_video, tmp_path_factory):
    """Six small videos with spaces and letters in their names; video k begins with frame 8 k."""
    folder = tmp_path_factory.mktemp("files é")
    frames_THWC = index_frames(6 * NUM_FRAMES)
    return [
        make_video(folder / f"kůň {k}.mp4", frames_THWC[k * NUM_FRAMES : (k + 1) * NUM_FRAMES])
        for k in range(6)
    ]


@pytest.fixture
def root(files, tmp_path):
    """Three shards of two videos each, written by the library itself."""
    folder = tmp_path / "my shards é"
    folder.mkdir()
    for number in range(3):
        with webdataset.TarWriter(str(folder / f"train-{number}.tar")) as tar:
            for k in (2 * number, 2 * number + 1):
                with open(files[k], "rb") as file:
                    tar.write({"__key__": f"kůň {k}", "mp4": file.read(), "cls": k})
    return folder


def read(path, backend="auto"):
    with open_video(path, backend=backend) as reader:
        return reader.frames_at(range(reader.num_frames))


def paths_of(root, **options):
    return [record.path for record in dataset.read_index(str(root), "train", **options)]


def cause(path, backend="auto"):
    try:
        read(path, backend)
    except DecodeError as error:  # pytest.raises would keep it, and all that it holds
        found = error.path, error.cause
    else:
        raise AssertionError(f"{path} decodes")
    assert found[0] == path
    return found[1]


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["/a b/x.tar", "http://[::1]:80/x.tar?a=b", "s3::/é%20.tar"])
@pytest.mark.parametrize("name", ["a.mp4", "a/b c@1+2.mp4", "x::y%3A.mp4", "kůň\n.webm"])
def test_a_path_says_where_the_bytes_are_and_is_read_back(shard, name):
    member = Member(shard, name, 1536, 48213)
    assert parse_member(member.path) == member
    assert file_behind(member.path) == shard


@pytest.mark.parametrize("path", ["a.mp4", "x.tar", "x.tar::a.mp4", "http://[::1]/a.mp4", "::@1+2"])
def test_other_paths_are_no_members(path):
    assert parse_member(path) is None
    assert file_behind(path) == path


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord", "torchcodec"])
def test_videos_in_shards_decode_as_their_files_do(root, files, backend):
    if backend not in ("auto", "pyav"):
        pytest.importorskip(backend)
    for path, file in zip(paths_of(root), files, strict=True):
        np.testing.assert_array_equal(read(path, backend), read(file, backend))


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord", "torchcodec"])
def test_a_video_in_a_shard_is_read_once(root, videos, backend, monkeypatch, tmp_path):
    if backend not in ("auto", "pyav"):
        pytest.importorskip(backend)
    with webdataset.TarWriter(str(root / "train-9.tar")) as tar:
        with open(videos["h264_b.avi"], "rb") as file:  # decord and torchcodec refuse it
            tar.write({"__key__": "doubtful", "avi": file.read(), "cls": 0})
        tar.write({"__key__": "noise", "mp4": bytes(range(256)) * 20, "cls": 0})
    opened = []
    monkeypatch.setattr(
        members, "open_shard", lambda shard: opened.append(shard) or shard_cache.open_shard(shard)
    )
    for path in paths_of(root):
        opened.clear()
        with suppress(DecodeError):
            read(path, backend)
        assert opened == [file_behind(path)]


def test_checking_or_copying_a_video_in_a_shard_reads_it_once(root, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(
        members, "open_shard", lambda shard: opened.append(shard) or shard_cache.open_shard(shard)
    )
    records = dataset.read_index(str(root), "train")
    settings = ScanSettings("auto", True, ClipSpec(4, 2, 30.0))
    for record in records:
        assert not check_video(record.path, Job(), settings=settings).reason
    assert opened == [file_behind(record.path) for record in records]
    opened.clear()
    plan = plan_shards(records, "val", shard_bytes=1 << 20, seed=0)
    assert not write_shards(plan, str(tmp_path), "val")
    assert opened == [file_behind(record.path) for record in records]


def test_every_kind_of_file_decodes_from_a_shard(videos, tmp_path):
    """A shard hides the ending of a file's name: the decoders must do without."""
    with webdataset.TarWriter(str(tmp_path / "train-0.tar")) as tar:
        for place, (name, file) in enumerate(videos.items()):
            ending = name.rpartition(".")[2]
            with open(file, "rb") as content:
                tar.write({"__key__": f"{place}", ending: content.read(), "cls": 0})
    for path, file in zip(paths_of(tmp_path), videos.values(), strict=True):
        with open_video(path) as inside, open_video(file) as alone:
            assert (inside.num_frames, inside.fps) == (alone.num_frames, alone.fps)
            wanted = [0, inside.num_frames - 1]
            np.testing.assert_array_equal(inside.frames_at(wanted), alone.frames_at(wanted))


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
@pytest.mark.parametrize("backend", ["pyav", "auto"])
def test_no_descriptors_are_left_open(root, backend):
    good = paths_of(root)[0]
    member = parse_member(good)
    bad = Member(member.shard, member.name, member.offset, member.size - 1).path
    noise = root / "noise-0.tar"
    with webdataset.TarWriter(str(noise)) as tar:
        tar.write({"__key__": "n", "mp4": b"no video" * 50})
    ((sample,), _) = scan_shard(str(noise), labelled=False)
    read(good, backend)
    gc.collect()
    before = open_descriptors()
    for _ in range(40):
        read(good, backend)
        cause(bad, backend)
    assert open_descriptors() <= before + 1
    noise_path = Member(str(noise), "n.mp4", sample.offset, sample.size).path
    assert "not a readable video" in cause(noise_path, backend)
    gc.collect()
    gc.disable()  # closed at once, not by and by
    try:
        for _ in range(40):
            cause(noise_path, backend)
        left = open_descriptors()
    finally:
        gc.enable()
    assert left <= before + 1


def test_without_files_in_memory_a_temporary_one_serves_and_goes(root, files, monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    held = fetch_file(paths_of(root)[0])
    assert isinstance(held, HeldFile)
    with open(held, "rb") as inside, open(files[0], "rb") as alone:
        assert inside.read() == alone.read()
    held.close()
    assert not os.path.exists(held)
    held.close()


# --- faults --------------------------------------------------------------------------------------


def test_a_shard_that_breaks_off_costs_its_last_video(root, files):
    expected = paths_of(root)
    shard = root / "train-2.tar"
    member = parse_member(expected[5])
    os.truncate(shard, member.offset + member.size // 2)
    assert paths_of(root) == expected  # the header is there still
    np.testing.assert_array_equal(read(expected[4]), read(files[4]))
    assert f"breaks off: {member.size // 2} of its {member.size} bytes" in cause(expected[5])
    os.truncate(shard, member.offset - 600)
    assert f"breaks off: 0 of its {member.size} bytes" in cause(expected[5])


def test_a_missing_shard_is_a_video_that_does_not_decode(root):
    path = paths_of(root)[2]
    (root / "train-1.tar").unlink()
    assert cause(path).startswith("its shard is missing: no such file as ")
    (root / "train-1.tar").mkdir()
    assert "cannot be read or fetched (Is a directory)" in cause(path)


def test_a_shard_that_was_written_anew_is_not_taken_for_the_old_one(root):
    paths = paths_of(root)
    os.replace(root / "train-0.tar", root / "train-1.tar")
    assert "was rewritten" in cause(paths[3])
    member = parse_member(paths[0])
    moved = Member(member.shard, member.name, member.offset + 5, member.size).path
    assert "is missing" in cause(moved)
    here = Member(str(root / "train-2.tar"), member.name, member.offset + 5, member.size).path
    assert "was rewritten" in cause(here)


def test_an_empty_video(root):
    with webdataset.TarWriter(str(root / "train-9.tar")) as tar:
        tar.write({"__key__": "e", "mp4": b"", "cls": 0})
    assert cause(paths_of(root)[-1]) == "is empty (0 bytes)."


# --- shards by URL -------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    fetched: list[str]

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.fetched.append(self.path)
        super().do_GET()


@pytest.fixture
def server(root):
    """The shards behind http; returns the URL of their folder and the list of what was fetched."""
    fetched: list[str] = []
    handler = type("Handler", (_Quiet,), {"fetched": fetched})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(root.parent))
    ) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/my%20shards%20%C3%A9", fetched
        httpd.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("HIERA_VIDEO_SHARD_CACHE", str(folder))
    return folder


def index_shards(root):
    """Write the index, without which remote shards are not known."""
    names = [f"train-{number}.tar" for number in range(3)]
    listed = [Shard(name, scan_shard(str(root / name), labelled=True)[0]) for name in names]
    write_index(str(root / "train.json"), listed)


def shards_in(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.endswith(".tar"))


def test_shards_by_url_are_fetched_once_and_the_oldest_makes_room(
    root, files, server, cache, monkeypatch
):
    url, fetched = server
    index_shards(root)
    paths = paths_of(root, path_prefix=url)
    shard_bytes = (root / "train-0.tar").stat().st_size
    monkeypatch.setenv("HIERA_VIDEO_SHARD_CACHE_GIB", str(2.5 * shard_bytes / 2**30))
    for k in (0, 1, 2, 3, 0):
        np.testing.assert_array_equal(read(paths[k]), read(files[k]))
        time.sleep(0.01)  # file systems count time in steps
    assert len(fetched) == 2
    read(paths[4])  # a third: the second has not been used for longest
    assert len(fetched) == 3
    left = {name.rpartition("-train-")[2] for name in shards_in(cache)}
    assert left == {"0.tar", "2.tar"}
    read(paths[1])
    assert len(fetched) == 3
    np.testing.assert_array_equal(read(paths[3]), read(files[3]))
    assert len(fetched) == 4
    assert {file.suffix for file in cache.iterdir()} <= {".tar", ".lock", ".origin"}


def test_a_shard_larger_than_the_cache_serves_still(root, files, server, cache, monkeypatch):
    index_shards(root)
    paths = paths_of(root, path_prefix=server[0])
    monkeypatch.setenv("HIERA_VIDEO_SHARD_CACHE_GIB", "1e-9")
    for k in range(6):
        np.testing.assert_array_equal(read(paths[k]), read(files[k]))
        assert len(shards_in(cache)) == 1


def read_bytes(paths):
    """Read all videos, in a process of its own; return their sizes."""
    return [os.stat(fetch_file(path)).st_size for path in paths * 3]


def test_processes_share_a_cache_that_is_too_small_for_them(
    root, files, server, cache, monkeypatch
):
    index_shards(root)
    paths = paths_of(root, path_prefix=server[0])
    shard_bytes = (root / "train-0.tar").stat().st_size
    monkeypatch.setenv("HIERA_VIDEO_SHARD_CACHE_GIB", str(1.5 * shard_bytes / 2**30))
    with multiprocessing.get_context("fork").Pool(3) as pool:
        turned = [paths[shift:] + paths[:shift] for shift in (0, 2, 4)]
        found = pool.map(read_bytes, turned, chunksize=1)
    for sizes, order in zip(found, turned, strict=True):
        assert sizes == [os.stat(files[paths.index(path)]).st_size for path in order * 3]
    assert len(shards_in(cache)) == 1


def test_a_remote_shard_that_is_not_there_is_a_video_that_does_not_decode(
    root, server, cache, tmp_path
):
    index_shards(root)
    path = paths_of(root, path_prefix=server[0])[0]
    (root / "train-0.tar").unlink()
    assert "its shard cannot be read or fetched (HTTP Error 404" in cause(path)
    assert "its shard cannot be read or fetched (" in cause("s3://x/y.tar::a.mp4@512+9")
    assert "no such file" in cause(f"file://{tmp_path}/y.tar::a.mp4@512+9")
    assert shards_in(cache) == []


def test_other_schemes_go_through_fsspec(root, files, cache):
    index_shards(root)
    paths = paths_of(root, path_prefix=f"file://{root}")
    np.testing.assert_array_equal(read(paths[2]), read(files[2]))
    assert len(shards_in(cache)) == 1


def test_a_shard_can_be_fetched_before_it_is_read(root, server, cache):
    url, fetched = server
    index_shards(root)
    path = paths_of(root, path_prefix=url)[0]
    fetch_shard(path)
    assert len(fetched) == 1
    read(path)
    assert len(fetched) == 1
    for other in ("a.mp4", f"{root}/train-0.tar::a@512+1", f"{url}/gone.tar::a.mp4@512+1"):
        fetch_shard(other)


def test_what_killed_downloads_left_is_removed(cache):
    cache.mkdir()
    old, new = cache / ".x.tar.1.tmp", cache / ".x.tar.2.tmp"
    for file in (old, new):
        file.write_bytes(b"x" * 100)
    os.utime(old, (0, 0))
    make_room(str(cache), 1000, keep="")
    assert [p.name for p in cache.iterdir() if p.suffix == ".tmp"] == [new.name]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "ten"])
def test_a_limit_that_is_no_size(monkeypatch, text):
    monkeypatch.setenv("HIERA_VIDEO_SHARD_CACHE_GIB", text)
    with pytest.raises(ValueError, match=f"number above 0, in GiB, got '{text}'"):
        shard_cache.cache_limit_bytes()
