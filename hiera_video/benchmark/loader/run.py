"""The loader benchmark from videos to text: choose or make videos, measure, render."""

import tempfile
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from hiera_video.benchmark.loader.measure import backends_to_compare, compare_loading
from hiera_video.benchmark.loader.parts import training_parts
from hiera_video.benchmark.loader.report import (
    render_head,
    render_loading,
    render_parts,
    render_per_view,
)
from hiera_video.benchmark.loader.videos import make_videos
from hiera_video.benchmark.timing import machine
from hiera_video.config import Config
from hiera_video.data.build import read_records
from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.records import VideoRecord
from hiera_video.utils.machine import usable_cores


def loading_report(
    cfg: Config, split: str, *, num_videos: int, num_workers: int | None, rounds: int
) -> str:
    """Measure decoding, transforms and transport of videos separately; return the figures.

    The videos are some of the list `split`, or synthetic ones if the config names no list.
    `num_workers` None: as many as the config's, at most one per core.
    """
    wanted_workers = max(cfg.DATA_LOADER.NUM_WORKERS, 1)
    with tempfile.TemporaryDirectory(prefix="hiera_video_benchmark_") as folder:
        records = some_records(cfg, split, num_videos, folder)
        figures = compare_loading(
            cfg,
            records,
            backends=backends_to_compare(cfg),
            num_workers=num_workers or min(wanted_workers, usable_cores()),
            rounds=rounds,
        )
        frames_THWC = some_frames(records, cfg.DATA.NUM_FRAMES)
    parts_sec = training_parts(cfg, frames_THWC, repeats=rounds)
    whose = "videos of the list" if cfg.DATA.PATH_TO_DATA_DIR else "ten-second 340x256 H.264 videos"
    head = f"{whose}, {machine()}, {render_head(figures)}"
    tables = (render_loading(figures), render_per_view(figures), render_parts(parts_sec))
    return "\n\n".join([head, *tables])


def some_records(cfg: Config, split: str, num_videos: int, folder: str) -> Sequence[VideoRecord]:
    """Return videos spread evenly over a list; without a list, make new ones in `folder`."""
    if not cfg.DATA.PATH_TO_DATA_DIR:
        print(f"No DATA.PATH_TO_DATA_DIR: making {num_videos} videos ...", flush=True)
        paths = make_videos(folder, num_videos=num_videos)
        return [VideoRecord(path, 0, number) for number, path in enumerate(paths)]
    records = read_records(cfg, split)
    some = np.linspace(0, len(records) - 1, min(num_videos, len(records))).astype(int)
    return [records[number] for number in some]


def some_frames(records: Sequence[VideoRecord], num_frames: int) -> np.ndarray:
    """Return frames of the first video that can be read, spread over its length."""
    for record in records[:-1]:
        with suppress(DecodeError):
            return read_frames(record.path, num_frames)
    return read_frames(records[-1].path, num_frames)


def read_frames(path: str, num_frames: int) -> np.ndarray:
    """Return `num_frames` frames spread over a video."""
    with open_video(path) as video:
        return video.frames_at(np.linspace(0, video.num_frames - 1, num_frames).astype(np.int64))
