"""Write the demo data: short H.264 videos of moving shapes, and csv files in Kinetics' format.

    FOLDER/train.csv, val.csv, test.csv     lines of `path label`, paths relative to FOLDER
    FOLDER/classes.txt                      one class name per line, in the order of the labels
    FOLDER/train/<class>/00000.mp4 ...      and FOLDER/val/<class>/...; test.csv equals val.csv
    FOLDER/demo_data.json                   the parameters; says whether the set is complete

Shape legend: T frames, H height, W width, C colour (RGB).
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np

from hiera_video.data.decoders._container import open_output
from hiera_video.data.synthetic.manifest import (
    CLASSES,
    LISTS,
    SPLITS,
    DemoParameters,
    Manifest,
    Video,
    is_complete,
    new_manifest,
    read_manifest,
    refuse_what_is_not_ours,
    write_manifest,
    write_text,
)
from hiera_video.data.synthetic.motion import MOTIONS
from hiera_video.data.synthetic.render import SHAPES, render_clip
from hiera_video.utils.errors import UserError
from hiera_video.utils.machine import usable_cores

FPS = 30  # the default of DATA.TARGET_FPS, so that a stride of 2 is two frames of the file


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """The contents of a folder of demo data; `made` is False if it was already complete."""

    folder: str
    num_videos: int
    num_classes: int
    num_bytes: int
    made: bool


def make_demo_data(
    folder: str,
    parameters: DemoParameters | None = None,
    *,
    num_workers: int | None = None,
    overwrite: bool = False,
) -> DemoSummary:
    """Write the demo data into `folder`, unless an earlier call has already written it.

    The files depend only on `parameters`, not on `num_workers` (processes; None: one per usable
    core). Data with other parameters is replaced only if `overwrite` is True. Files that this
    function did not write are never replaced or removed. Raises UserError for parameters out of
    range, and if the folder holds something else or cannot be written. With more than one worker,
    a script that calls this needs an `if __name__ == "__main__"`.
    """
    parameters = parameters or DemoParameters()
    parameters.check()
    if num_workers is not None and num_workers < 1:
        raise UserError(f"--workers must be at least 1, got {num_workers}. Try 1.")
    root = Path(folder)
    try:
        found = read_manifest(root)
        if found is not None and is_complete(root, found, parameters):
            return _summary(root, found, made=False)
        refuse_what_is_not_ours(root, found, parameters, overwrite=overwrite)
        return _write(root, found, parameters, num_workers or usable_cores())
    except OSError as error:
        where = error.filename or folder
        raise UserError(
            f"OUTPUT_DIR must be a folder that can be written, got {folder} ({where}: "
            f"{error.strerror or error}). Try another folder."
        ) from error
    except BrokenProcessPool as error:
        raise UserError(
            f"A process that was writing to {folder} was killed, perhaps for want of memory. "
            "Try again with fewer --workers."
        ) from error


def encode_h264(path: str, frames_THWC: np.ndarray, *, fps: int = FPS) -> None:
    """Write uint8 RGB frames [T, H, W, 3], H and W even, as an H.264 (yuv420p) mp4 file.

    One thread and no time stamps: the same frames give the same bytes. Raises OSError.
    """
    _, height, width, _ = frames_THWC.shape
    # Pass an open file instead of a path, so that errors of the system arrive as OSError.
    with (
        open(path, "wb") as file,
        open_output(file, format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        # With its macroblock tree, x264 occasionally encodes the same small frames differently.
        stream.options = {"preset": "veryfast", "crf": "20", "mbtree": "0"}
        for frame_HWC in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())


def _write(
    root: Path, found: Manifest | None, parameters: DemoParameters, num_workers: int
) -> DemoSummary:
    root.mkdir(parents=True, exist_ok=True)
    begun = new_manifest(parameters, complete=False, num_bytes=0)
    if found is not None:
        _remove(root, found.paths() - begun.paths())
    # Write the manifest first, so that files left by an interruption are known to be ours.
    write_manifest(root, begun)

    videos = list(begun.videos())
    for video_folder in sorted({(root / video.path).parent for video in videos}):
        video_folder.mkdir(parents=True, exist_ok=True)
    num_bytes = sum(_map(partial(_write_video, str(root), parameters), videos, num_workers))
    for name, split in LISTS.items():
        lines = [
            f"{video.path} {begun.classes.index(video.motion)}\n"
            for video in videos
            if video.split == split
        ]
        write_text(root / name, "".join(lines))
    write_text(root / CLASSES, "".join(f"{name}\n" for name in begun.classes))

    finished = new_manifest(parameters, complete=True, num_bytes=num_bytes)
    write_manifest(root, finished)
    return _summary(root, finished, made=True)


def _write_video(folder: str, parameters: DemoParameters, video: Video) -> int:
    # Each video has its own generator, so its pixels do not depend on the process that draws them.
    key = (SPLITS.index(video.split), list(MOTIONS).index(video.motion), video.number)
    rng = np.random.default_rng(np.random.SeedSequence(parameters.seed, spawn_key=key))
    frames_THWC = render_clip(
        rng,
        video.motion,
        size=parameters.size,
        num_frames=parameters.num_frames,
        # Every class gets each shape, bright and dark, equally often.
        shape=list(SHAPES)[video.number % len(SHAPES)],
        bright=video.number // len(SHAPES) % 2 == 0,
    )
    path = os.path.join(folder, video.path)
    encode_h264(path, frames_THWC)
    return os.path.getsize(path)


def _map(function: Callable[[Video], int], videos: list[Video], num_workers: int) -> Iterator[int]:
    if num_workers == 1:
        yield from map(function, videos)
        return
    # Spawn instead of fork, because the caller may have threads (torch's, for example). Workers
    # ignore an interrupt, which the caller handles; otherwise each would print a traceback.
    with ProcessPoolExecutor(
        num_workers,
        mp_context=get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        yield from pool.map(function, videos, chunksize=16)


def _remove(root: Path, paths: set[str]) -> None:
    for path in paths:
        (root / path).unlink(missing_ok=True)
    for folder in {(root / path).parent for path in paths} - {root}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _summary(root: Path, manifest: Manifest, *, made: bool) -> DemoSummary:
    return DemoSummary(
        folder=str(root),
        num_videos=sum(1 for _ in manifest.videos()),
        num_classes=len(manifest.classes),
        num_bytes=manifest.num_bytes,
        made=made,
    )
