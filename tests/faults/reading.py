"""Functions of a worker for a damaged file: read a sample as training does, or judge its frames.

Legend: T frames read, N frames of the file, H height, W width, 3 RGB.
"""

import re
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from hiera_video.data.dataset import TestViews, TrainViews, VideoDataset
from hiera_video.data.decoders._packets import demux
from hiera_video.data.decoders._picture import display_matrix, upright
from hiera_video.data.records import VideoRecord
from hiera_video.data.sampling import ClipSpec, testing_indices, training_indices
from hiera_video.data.transforms.pipeline import TestTransform, TrainTransform
from hiera_video.data.workers.process import Job

_COLOURS = {"mean": (0.45,) * 3, "std": (0.225,) * 3}
_CLIP = ClipSpec(8, 2, 30.0)
# A damaged header may state any picture size. Larger ones than this are not judged.
_MAX_JUDGED_BYTES = 100_000_000


class _WatchedReader:
    """A reader that remembers which frames it returned."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.indices_T = np.empty(0, np.int64)
        self.frames_THWC = np.empty(0, np.uint8)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        frames_THWC = self._reader.frames_at(indices)
        self.indices_T, self.frames_THWC = np.asarray(indices), frames_THWC
        return frames_THWC


class _WatchedViews:
    """The views of a run, and the reader from which they were taken."""

    def __init__(self, views: TrainViews | TestViews) -> None:
        self._views, self.finish = views, views.finish
        self.reader: _WatchedReader | None = None

    def __call__(self, reader: Any, rng: np.random.Generator, allocate: Any) -> Any:
        self.reader = _WatchedReader(reader)
        return self._views(self.reader, rng, allocate)


def _views(number: int) -> TrainViews | TestViews:
    """Return the views of training for even numbers, and those of a test for odd numbers."""
    if number % 2:
        return TestViews(
            sample_frames=partial(testing_indices, _CLIP, num_clips=3),
            transform=TestTransform(crop_size=32, num_crops=1, **_COLOURS),
        )
    transform = TrainTransform(
        crop_size=32,
        scale=(0.2, 1.0),
        aspect=(0.75, 1.3333),
        flip=True,
        policy=None,
        erase_probability=0.0,
        erase_mode="pixel",
        **_COLOURS,
    )
    sample_frames = partial(training_indices, _CLIP)
    return TrainViews(sample_frames=sample_frames, transform=transform, num_views=1)


def read_sample(task: tuple[int, str, str], job: Job) -> dict[str, Any]:
    """Read a sample of file (number, path) with a backend. Called in a worker.

    Returns `frames_THWC` and `indices_T`, or `reason` (of a DecodeError), or `bug` (a traceback).
    Also returns the memory of the process in KiB: `peak_kib` while reading and `after_kib`.
    """
    number, path, backend = task
    job.begin(0)
    views = _WatchedViews(_views(number))
    dataset = VideoDataset(
        [VideoRecord(path, 0, 0)],
        make_views=views,
        backend=backend,
        seed=number,
        replace_bad=False,
        finish=False,
    )
    _forget_peak()
    try:
        sample = dataset.read((0, 0))
    except Exception:
        return {"bug": traceback.format_exc(), **_memory()}
    found: dict[str, Any] = _memory()
    if sample.views is None:
        (failure,) = sample.failures
        one_line = failure.reason.startswith(f"{path}: ") and "\n" not in failure.reason
        return found | ({"reason": failure.reason} if one_line else {"bug": failure.reason})
    assert views.reader is not None
    found["indices_T"] = views.reader.indices_T
    found["frames_THWC"] = np.ascontiguousarray(views.reader.frames_THWC)
    return found


def judge(path: str, job: Job) -> dict[str, Any] | None:
    """Decode a file from its start with plain PyAV. Called in a worker.

    Returns `frames_NHWC` up to the first error or change of size; `later_NHWC`, the frames that
    decode if errors are skipped, and their `later_pts`; and `packet_pts`, sorted. Returns None if
    the file is not a video or its frames are too large to keep.
    """
    job.begin(0)
    try:
        frames, _ = _frames(path, pass_over_errors=False)
        later, later_pts = _frames(path, pass_over_errors=True)
        packet_pts = _packet_times(path)
    except (av.FFmpegError, ValueError, AttributeError, MemoryError):
        return None
    return {
        "frames_NHWC": frames,
        "later_NHWC": later,
        "later_pts": later_pts,
        "packet_pts": packet_pts,
    }


def _frames(path: str, *, pass_over_errors: bool) -> tuple[np.ndarray, list[int | None]]:
    frames: list[np.ndarray] = []
    times: list[int | None] = []
    with av.open(path, metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for frame in _decoded(demux(container, stream), pass_over_errors=pass_over_errors):
            picture_HWC = upright(frame.to_ndarray(format="rgb24"), display_matrix(frame))
            if (len(frames) + 1) * picture_HWC.nbytes > _MAX_JUDGED_BYTES:
                raise MemoryError
            if frames and frames[0].shape != picture_HWC.shape:
                break
            frames.append(picture_HWC)
            times.append(frame.pts)
    return (np.stack(frames) if frames else np.empty((0, 1, 1, 3), np.uint8)), times


def _decoded(packets: Iterator[av.Packet], *, pass_over_errors: bool) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield from next(packets).decode()
        except StopIteration:
            return
        except av.FFmpegError as error:
            if not (pass_over_errors and isinstance(error, av.InvalidDataError)):
                return


def _packet_times(path: str) -> list[int]:
    times = []
    with av.open(path, metadata_errors="replace") as container:
        try:
            for packet in demux(container, container.streams.best("video")):
                if packet.size and packet.pts is not None and not packet.is_discard:
                    times.append(packet.pts)
        except av.FFmpegError:
            pass
    return sorted(times)


def _forget_peak() -> None:
    """Reset the kernel's measurement of peak memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory() -> dict[str, int]:
    status = Path("/proc/self/status").read_text()
    peak, after = (
        int(re.search(rf"{name}:\s*(\d+)", status)[1])  # type: ignore[index]
        for name in ("VmHWM", "VmRSS")
    )
    return {"peak_kib": peak, "after_kib": after}
