"""Decoded pictures are freed at once, not at the next run of the garbage collector.

A decoded picture is large but its Python object is small, and the collector counts objects, so it
runs late: pictures in reference cycles were half of a reader's memory.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from hiera_video.data import sampling
from hiera_video.data.checks.scan import ScanSettings, check_video
from hiera_video.data.dataset import TrainViews, VideoDataset
from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.prepare.encode import Encoding
from hiera_video.data.prepare.one import Task, prepare_one
from hiera_video.data.records import VideoRecord
from hiera_video.data.transforms.pipeline import TrainTransform
from hiera_video.data.workers.process import Job

BACKENDS = ("auto", "pyav", "torchcodec", "decord")
FILES = ("h264_b.mp4", "h264_b.avi", "damaged.mp4", "noise.mp4")
DENSE = sampling.ClipSpec(4, 2, 30.0)


@contextmanager
def garbage_of(work: Callable[[], object]) -> Iterator[list[str]]:
    """Do `work` without the collector; give the types of what only the collector would free."""
    work()  # whatever stays after the first time is kept on purpose: imports, caches
    gc.collect()
    gc.freeze()  # what is there already need not be looked through again
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        work()
        gc.collect()
        yield sorted(f"{type(thing).__module__}.{type(thing).__name__}" for thing in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


def read(path: str, backend: str) -> None:
    try:
        with open_video(path, backend) as reader:
            reader.frames_at(np.arange(0, reader.num_frames, 3))
    except DecodeError:
        pass


def train(path: str, backend: str) -> None:
    transform = TrainTransform(
        crop_size=32,
        scale=(0.5, 1.0),
        aspect=(0.75, 1.3333),
        flip=True,
        policy=None,
        erase_probability=0.0,
        erase_mode="pixel",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    views = TrainViews(
        sample_frames=partial(sampling.training_indices, DENSE),
        transform=transform,
        num_views=2,
    )
    records = [VideoRecord(path, 0, 0)]
    VideoDataset(records, make_views=views, backend=backend, seed=0, replace_bad=True)[(0, 0)]


def check(path: str, backend: str) -> None:
    check_video(path, Job(), settings=ScanSettings(backend, True, DENSE))


@pytest.fixture(scope="module")
def files(videos, bad_videos) -> dict[str, str]:
    return videos | bad_videos


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_read_waits_for_the_collector(backend, files) -> None:
    def work() -> None:
        for name in FILES:
            for way in (read, train, check):
                way(files[name], backend)

    with garbage_of(work) as garbage:
        # decord's bridge to C makes types for its pointers, in cycles; they hold no picture.
        ours = [kind for kind in garbage if kind.startswith(("av.", "hiera_video."))]
        assert not (ours if backend == "decord" else garbage)


def test_nothing_prepared_waits_for_the_collector(files, tmp_path) -> None:
    def work() -> None:
        for name in FILES:
            prepare_one(Task(files[name], str(tmp_path / f"{name}.mp4"), Encoding()), Job())

    with garbage_of(work) as garbage:
        assert not garbage
