"""Clips from kept frames are those of the decoder, and the memory stays within its bound."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hiera_video.config import load_config
from hiera_video.data import build, frame_cache
from hiera_video.data.build import build_frame_cache, build_loader, check_data_settings
from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.frame_cache import FrameCache
from hiera_video.data.records import VideoRecord
from hiera_video.engine.train_run import describe_cache
from hiera_video.utils.errors import UserError

FRAME_BYTES = 48 * 64 * 3


def make_cfg(*overrides):
    words = (
        "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 TRAIN.BATCH_SIZE 4 "
        "TEST.BATCH_SIZE 4 DATA_LOADER.NUM_WORKERS 0 AUG.NUM_SAMPLE 2 DATA_LOADER.CACHE 0.01"
    )
    return load_config("configs/Demo/HIERA_MICRO.yaml", " ".join((words, *overrides)).split())


@pytest.fixture
def videos(index_frames, make_video, tmp_path):
    """Eight videos: plain ones, one at a changing rate, one turned, one of wide pixels, one cut."""
    records = []
    for number in range(8):
        path = str(tmp_path / f"{number}.mp4")
        frames_THWC = index_frames(20 + number)
        make_video(path, frames_THWC, rotation=90 if number == 1 else 0)
        records.append(VideoRecord(path, number % 8, number))
    turned_gif = str(tmp_path / "2.gif")
    make_video(turned_gif, index_frames(16), codec="gif", pix_fmt="rgb8", fps=10)
    records[2] = VideoRecord(turned_gif, 2, 2)
    with open(records[3].path, "r+b") as file:
        file.truncate(os.path.getsize(records[3].path) * 3 // 4)
    return records


def batches(cfg, records, *, split="train", cache=None, first=0, epochs=(0, 1)):
    loader = build_loader(cfg, split, records, cache=cache, first_in_cache=first)
    try:
        return [
            (batch.clips_BCTHW.clone(), batch.labels_B.tolist(), batch.failures)
            for epoch in epochs
            for batch in loader.batches(epoch)
        ]
    finally:
        loader.close()


def same(one, other):
    assert len(one) == len(other)
    for (clips, labels, failures), (others, their_labels, their_failures) in zip(
        one, other, strict=True
    ):
        assert torch.equal(clips, others)
        assert (labels, failures) == (their_labels, their_failures)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("normalised_by", ["device", "worker"])
def test_the_clips_are_the_same_bits(videos, workers, split, normalised_by):
    cfg = make_cfg(
        f"DATA_LOADER.NUM_WORKERS {workers} "
        f"DATA_LOADER.NORMALIZE_ON_DEVICE {normalised_by == 'device'}"
    )
    cache = build_frame_cache(cfg, 3 + len(videos))
    kept = batches(cfg, videos, split=split, cache=cache, first=3)
    same(kept, batches(cfg, videos, split=split))
    assert cache.num_kept >= 7
    assert not cache.is_full
    assert not any(cache.holds(number) for number in range(3))


def test_other_processes_read_what_one_has_decoded(videos):
    cfg = make_cfg("DATA_LOADER.NUM_WORKERS 2 TRAIN.BATCH_SIZE 1")
    whole = [record for record in videos if record.video_index != 3]
    expected = batches(cfg, whole)
    cache = build_frame_cache(cfg, len(whole))
    first = batches(cfg, whole, cache=cache, epochs=[0])
    for record in whole:
        Path(record.path).unlink()
    same(first + batches(cfg, whole, cache=cache, epochs=[1]), expected)


def test_the_memory_has_a_bound(videos):
    cfg = make_cfg()
    num_bytes = FrameCache.least_bytes(len(videos)) + 50 * FRAME_BYTES
    cache = FrameCache(len(videos), num_bytes)
    same(batches(cfg, videos, cache=cache), batches(cfg, videos))
    assert 1 <= cache.num_kept <= 2
    assert cache.is_full
    assert cache.used_bytes <= cache.num_bytes == num_bytes
    taken = os.fstat(cache._block.descriptor)
    assert taken.st_size == num_bytes
    assert taken.st_blocks * 512 <= num_bytes + os.sysconf("SC_PAGE_SIZE")


def test_the_log_says_what_is_kept_and_what_all_need(videos):
    cache = FrameCache(len(videos), FrameCache.least_bytes(len(videos)) + 50 * FRAME_BYTES)
    assert describe_cache(cache).startswith("DATA_LOADER.CACHE keeps 0 of 8 videos decoded")
    batches(make_cfg(), videos, cache=cache)
    assert re.search(r"The others do not fit: all need about 0\.0\d GiB\.$", describe_cache(cache))
    small = FrameCache(len(videos), 1)
    small.open(0, videos[0].path).close()
    assert describe_cache(small).endswith("None fits: try more.")


def test_memory_is_taken_as_videos_come(videos):
    cache = FrameCache(len(videos), 10**9)
    assert os.fstat(cache._block.descriptor).st_blocks * 512 < 10**6
    with cache.open(0, videos[0].path) as reader:
        assert reader.num_frames == 20
    assert 20 * FRAME_BYTES < os.fstat(cache._block.descriptor).st_blocks * 512 < 10**6


def test_a_video_is_decoded_once(videos, monkeypatch):
    opened = []

    def count(path, backend):
        opened.append(path)
        return open_video(path, backend=backend)

    monkeypatch.setattr(frame_cache, "open_video", count)
    whole = [record for record in videos if record.video_index != 3]
    cfg = make_cfg("TRAIN.BATCH_SIZE 7")
    cache = build_frame_cache(cfg, len(whole))
    batches(cfg, whole, cache=cache, epochs=range(5))
    assert sorted(opened) == sorted(record.path for record in whole)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_kept_video_answers_as_its_reader_does(videos, number):
    path = videos[number].path
    cache = FrameCache(len(videos), 10**7)
    cache.open(number, path).close()
    with open_video(path) as reader, cache.open(number, path) as kept:
        assert kept.file == ""
        assert (kept.path, kept.num_frames, kept.num_ticks, kept.fps) == (
            *(path, reader.num_frames),
            *(reader.num_ticks, reader.fps),
        )
        ticks = np.array([[0, reader.num_ticks - 1], [1, 1]])
        assert np.array_equal(kept.ticks_to_frames(ticks), reader.ticks_to_frames(ticks))
        wanted = [5, 0, 5, reader.num_frames - 1]
        frames_THWC = kept.frames_at(wanted)
        assert np.array_equal(frames_THWC, reader.frames_at(wanted))
        frames_THWC[:] = 0  # a copy
        assert np.array_equal(kept.frames_at(wanted), reader.frames_at(wanted))
        for wrong in ([reader.num_frames], [-1]):
            with pytest.raises(IndexError):
                kept.frames_at(wrong)
            with pytest.raises(IndexError):
                kept.ticks_to_frames([wrong[0] if wrong[0] < 0 else reader.num_ticks])


def test_a_long_video_is_decoded_in_parts(videos, monkeypatch):
    monkeypatch.setattr(frame_cache, "_FIRST_FRAMES", 2)
    monkeypatch.setattr(frame_cache, "_BYTES_AT_ONCE", 3 * FRAME_BYTES)
    cache = FrameCache(1, 10**7)
    with cache.open(0, videos[0].path) as kept, open_video(videos[0].path) as reader:
        assert np.array_equal(kept.frames_at(range(20)), reader.frames_at(range(20)))


def test_what_a_process_began_and_did_not_end_is_decoded(videos):
    cache = FrameCache(1, 10**7)
    assert cache._claim(0, 100) is not None
    for _ in range(2):
        with cache.open(0, videos[0].path) as reader:
            assert reader.frames_at([0]).shape == (1, 48, 64, 3)
    assert cache.num_kept == 0


def test_a_file_that_is_no_video_fails_as_ever(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    cache = FrameCache(1, 10**7)
    for _ in range(2):
        with pytest.raises(DecodeError, match="text.mp4"):
            cache.open(0, str(path))


def test_more_than_the_free_memory_is_refused(monkeypatch):
    monkeypatch.setattr(build, "free_memory", lambda: 5 * 2**30)
    with pytest.raises(UserError, match=r"DATA_LOADER.CACHE must be at most .* 5.0 GiB, got 6"):
        check_data_settings(make_cfg("DATA_LOADER.CACHE 6"))
    check_data_settings(make_cfg("DATA_LOADER.CACHE 4"))
    check_data_settings(make_cfg("DATA_LOADER.CACHE 6 TRAIN.ENABLE False"))
    assert build_frame_cache(make_cfg("DATA_LOADER.CACHE 0"), 10) is None
