import time

import av
import numpy as np
import pytest
import torch

from hiera_video.benchmark.loader import measure as bench
from hiera_video.benchmark.loader.parts import training_parts
from hiera_video.benchmark.loader.per_view import read_per_view_as_pyslowfast
from hiera_video.benchmark.loader.report import (
    render_head,
    render_loading,
    render_per_view,
)
from hiera_video.benchmark.loader.videos import VideoKind, make_videos
from hiera_video.benchmark.loader.worker import ClockedReader, Task, dataset_of
from hiera_video.config import load_config
from hiera_video.data.build import build_loader
from hiera_video.data.records import VideoRecord
from hiera_video.data.workers.process import Job
from hiera_video.utils.errors import UserError

KIND = VideoKind(width=96, height=64, num_frames=40)
SETTINGS = [
    *("NUM_GPUS", "0", "DATA.NUM_FRAMES", "4", "TEST.NUM_TEMPORAL_CLIPS", "2"),
    *("DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32", "DATA.DECODING_BACKEND", "pyav"),
]


@pytest.fixture(scope="module")
def cfg():
    return load_config("configs/Kinetics/HIERA_B.yaml", SETTINGS)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    paths = make_videos(str(folder), num_videos=2, kind=KIND)
    return [VideoRecord(path, 0, number) for number, path in enumerate(paths)]


def reader_of(cfg, records):
    return ClockedReader({s: build_loader(cfg, s, records)._read for s in bench.SPLITS})


def test_the_videos_are_as_promised_move_and_differ(records):
    first_frames = []
    for record in records:
        with av.open(record.path) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            assert stream.codec_context.name == "h264"
            assert stream.average_rate == 30
        assert np.shape(frames) == (40, 64, 96, 3)
        changes = np.abs(np.diff(np.asarray(frames, dtype=int), axis=0)).mean(axis=(1, 2, 3))
        assert changes.min() > 1
        first_frames.append(frames[0].astype(int))
    assert np.abs(first_frames[0] - first_frames[1]).mean() > 10


@pytest.mark.parametrize("split", bench.SPLITS)
def test_clocked_reading_gives_what_the_loader_gives_and_adds_up(cfg, records, split):
    begin_sec = time.process_time()
    reading = reader_of(cfg, records)(Task("views", split, (3, 1)), Job())
    assert 0 < reading.decode_sec < reading.work_sec < time.process_time() - begin_sec
    expected = build_loader(cfg, split, records)._read(([(3, 1)], {}), Job())
    assert torch.equal(reading.batch.clips_BCTHW, expected.clips_BCTHW)
    assert reading.failed == ""


@pytest.mark.parametrize("split", bench.SPLITS)
@pytest.mark.parametrize("on_device", ["True", "False"])
def test_plain_reading_decodes_the_same_frames_and_makes_no_views(records, split, on_device):
    words = [*SETTINGS, "DATA_LOADER.NORMALIZE_ON_DEVICE", on_device]
    reader = reader_of(load_config("configs/Kinetics/HIERA_B.yaml", words), records)
    asked = {}
    for way in (bench.PLAIN, bench.VIEWS):
        views = dataset_of(reader._readers[split]).make_views
        original = views.sample_frames

        def noting(*args, original=original, way=way, **kwargs):
            asked[way] = original(*args, **kwargs)
            return asked[way]

        views.sample_frames = noting
        reading = reader(Task(way, split, (5, 0)), Job())
        views.sample_frames = original
        assert (reading.batch is None) == (way == bench.PLAIN)
        assert reading.decode_sec > 0
    np.testing.assert_array_equal(asked[bench.PLAIN], asked[bench.VIEWS])


def test_reading_per_view_fails_as_reading_does(cfg, records, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    reader = reader_of(cfg, [*records, VideoRecord(str(broken), 0, 2)])
    for way in (bench.PLAIN, bench.VIEWS, bench.PER_VIEW, bench.PYSLOWFAST):
        assert reader(Task(way, "test", (0, 0)), Job()).failed == ""
        assert reader(Task(way, "test", (0, 2)), Job()).failed


def test_reading_as_pyslowfast_decodes_the_clip_it_should(cfg, records, monkeypatch):
    views = dataset_of(build_loader(cfg, "test", records)._read).make_views
    decoded = []
    original = av.VideoFrame.to_ndarray
    with av.open(records[0].path) as container:
        all_frames = [original(frame, format="rgb24") for frame in container.decode(video=0)]

    class Noting:
        def stack(self, frames):
            decoded.append(list(frames))
            return np.stack(frames)

        def __getattr__(self, name):
            return getattr(np, name)

    monkeypatch.setattr("hiera_video.benchmark.loader.per_view.np", Noting())
    read_per_view_as_pyslowfast(records[0].path, views)
    clips = views.sample_frames(40, 30.0)
    assert len(decoded) == len(clips) * 3
    for clip, frames in zip(np.repeat(clips, 3, axis=0), decoded, strict=True):
        np.testing.assert_array_equal(frames, all_frames[clip[0] : clip[-1] + 1])


def test_all_ways_are_measured_and_bad_videos_left_out(cfg, records, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    videos = [VideoRecord(str(broken), 0, 0), *records]
    figures = bench.compare_loading(cfg, videos, backends=["pyav"], num_workers=1, rounds=2)
    assert figures.num_read == {"pyav": 2}
    assert figures.backends == ["pyav"]
    assert str(broken) in figures.first_failures["pyav"]
    assert f"2 of 3 videos read; {broken}" in render_head(figures)
    assert (figures.clips_per_video["test"], figures.views_per_video["test"]) == (2, 6)
    ways = {(split, way) for _, split, way in figures.runs}
    assert ways == {
        *((split, way) for split in bench.SPLITS for way in (bench.PLAIN, bench.VIEWS)),
        ("test", bench.PER_VIEW),
        ("test", bench.PYSLOWFAST),
    }
    for (_, _, way), runs in figures.runs.items():
        assert len(runs) == 2
        for run in runs:
            parts = run.decode_sec, run.transform_sec, run.transport_sec
            assert run.cpu_sec == pytest.approx(sum(parts))
            assert min(parts) >= 0
            if way in (bench.PLAIN, bench.VIEWS):
                assert run.decode_sec > 0
    assert "rounds" in render_loading(figures)
    assert "as PySlowFast does" in render_per_view(figures)


def test_a_list_of_which_nothing_can_be_read_is_named(cfg, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(UserError, match=r"no video can be read; .*broken"):
        bench.compare_loading(
            cfg, [VideoRecord(str(broken), 0, 0)], backends=["pyav"], num_workers=1, rounds=1
        )


def test_ratios_are_taken_within_a_round():
    slow, fast = (bench.Run(s, 0.8 * s, 0.15 * s, 0.05 * s, 0.0) for s in (2.0, 1.0))
    plain = [bench.Run(s, s, 0.0, 0.0, 0.0) for s in (1.6, 0.8)]
    per_view = [bench.Run(s, 0.0, s, 0.0, 0.0) for s in (16.0, 8.0)]
    runs = {("pyav", split, bench.VIEWS): [slow, fast] for split in bench.SPLITS}
    runs |= {("pyav", split, bench.PLAIN): plain for split in bench.SPLITS}
    runs["pyav", "test", bench.PER_VIEW] = per_view
    per_video = {"test": 5, "train": 1}, {"test": 15, "train": 2}
    figures = bench.Figures(runs, {"pyav": 1, "decord": 0}, {}, 1, 1, *per_video)
    assert render_loading(figures).count("+25.0% (rounds: +25% +25%)") == 2
    assert "ratio 8.0 (rounds: 8.0 8.0)" in render_per_view(figures)


def test_parts_of_a_training_view_count_by_their_chance(cfg):
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)
    parts = training_parts(cfg, frames, repeats=1)
    assert list(parts.values()) == sorted(parts.values(), reverse=True)
    assert sum(name.startswith("RandAugment") for name in parts) == 15
    plain = load_config("configs/Kinetics/HIERA_B.yaml", [*SETTINGS, "AUG.ENABLE", "False"])
    assert set(training_parts(plain, frames, repeats=1)) == {
        *("crop and resize", "into the batch", "flip")
    }
