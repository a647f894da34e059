"""Decode an uploaded file into the crops of its windows, in a separate process.

The files are untrusted. So picture size and process memory are limited, and every fault of a file
becomes an answer.

Shape suffixes: V windows, T frames of a window, N distinct frames, S side of a crop, C colours
(RGB).
"""

import sys
from dataclasses import dataclass

import av
import numpy as np

from hiera_video.data.decoders import DecodeError, Decoding, VideoReader, open_video
from hiera_video.data.decoders._container import open_container
from hiera_video.data.sampling import ClipSpec
from hiera_video.data.transforms.pipeline import TestTransform
from hiera_video.data.workers.process import Job
from hiera_video.inference.windows import Grid, centre_crops, grid_ticks

MAX_PIXELS = 36_000_000  # of a picture: 8K has 33 million
MAX_ASPECT = 50
_CHUNK_BYTES = 128 << 20  # decoded frames in memory at a time
_MEMORY_BYTES = 2 << 30  # memory a decoding process may take beyond what it has at its start

_TOO_LARGE = "This video needs more memory than the server allows for one video."


@dataclass(frozen=True, slots=True)
class ReadWindows:
    """The cropped frames of all windows, uint8, and the indices into them of each window.

    `starts_V` are the grid frames where windows begin; `duration_sec` is the video's length.
    """

    crops_NSSC: np.ndarray
    frames_VT: np.ndarray
    starts_V: tuple[int, ...]
    duration_sec: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused file; `reason` is a sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class WindowReader:
    """Reads the windows of a file at the positions that `window_starts` gives.

    `clip` has the frame rate of videos that do not state one.
    """

    transform: TestTransform
    grid: Grid
    least_windows: int
    max_windows: int
    backend: str | Decoding
    clip: ClipSpec

    def __call__(self, path: str, job: Job) -> ReadWindows | Refused | None:
        """Read a file in one step of the job; the path "" only prepares the process."""
        limit_memory(_MEMORY_BYTES)
        if not path:
            return None
        job.begin(0)
        try:
            return check_container(path) or self._read(path, job)
        except DecodeError as error:
            return Refused(sentence(error.cause))
        except av.FFmpegError as error:
            return Refused(sentence(f"does not decode ({error.strerror or error})."))
        except MemoryError:
            return Refused(_TOO_LARGE)
        except RuntimeError as error:  # torch raises it when out of memory
            if "memory" not in str(error):
                raise
            return Refused(_TOO_LARGE)

    def _read(self, path: str, job: Job) -> ReadWindows | Refused:
        with open_video(path, backend=self.backend) as reader:
            fps = self.clip.rate_of(reader.fps)
            ticks_G = grid_ticks(reader.num_ticks, fps, self.grid)
            starts = window_starts(
                len(ticks_G), self.grid, least=self.least_windows, most=self.max_windows
            )
            places_VT = np.array(starts)[:, None] + np.arange(self.grid.num_frames)
            ticks_VT = ticks_G[np.minimum(places_VT, len(ticks_G) - 1)]
            wanted_N, frames = np.unique(reader.ticks_to_frames(ticks_VT), return_inverse=True)
            first_HWC = reader.frames_at(wanted_N[:1])[0]
            height, width, _ = first_HWC.shape
            if max(height, width) > MAX_ASPECT * min(height, width):
                return Refused(
                    f"The picture's longer side must be at most {MAX_ASPECT} times the shorter "
                    f"one, got {width} x {height} pixels."
                )
            side = self.transform.crop_size
            crops_NSSC = job.empty((len(wanted_N), side, side, 3), np.uint8)
            self._fill(crops_NSSC, reader, wanted_N, per_chunk=_CHUNK_BYTES // first_HWC.nbytes)
            return ReadWindows(
                crops_NSSC, frames.reshape(ticks_VT.shape), tuple(starts), reader.num_ticks / fps
            )

    def _fill(
        self, crops_NSSC: np.ndarray, reader: VideoReader, wanted_N: np.ndarray, *, per_chunk: int
    ) -> None:
        step = max(per_chunk, 1)
        for start in range(0, len(wanted_N), step):
            frames_NHWC = reader.frames_at(wanted_N[start : start + step])
            crops_NSSC[start : start + step] = centre_crops(self.transform, frames_NHWC)


def window_starts(num_frames: int, grid: Grid, *, least: int, most: int) -> range:
    """Return the indices among `num_frames` grid frames where windows begin.

    If the grid's stride gives fewer than `least` windows, the stride is reduced as far as the grid
    allows. If it gives more than `most`, the stride is increased so that the windows still reach
    the video's end.
    """
    last = max(num_frames - grid.num_frames, 0)
    stride = grid.stride
    if last // stride + 1 < least:
        stride = max(last // (least - 1), 1)
    if last // stride + 1 > most:
        stride = -(-last // (most - 1)) if most > 1 else last + 1
    return range(0, last + 1, stride)


def check_container(path: str) -> Refused | None:
    """Refuse a file whose container is invalid or whose picture is too large."""
    try:
        with open_container(path, path) as container:
            sizes = [
                (stream.codec_context.width, stream.codec_context.height)
                for stream in container.streams.video
                if stream.codec_context is not None
            ]
    except DecodeError as error:
        return Refused(sentence(error.cause))
    for width, height in sizes:
        if width * height > MAX_PIXELS:
            return Refused(
                f"The picture must have at most {MAX_PIXELS // 10**6} million pixels, got "
                f"{width} x {height}."
            )
    return None


def sentence(cause: str) -> str:
    """Turn a decoder's cause, such as "holds no video stream.", into a sentence about the file."""
    joins = cause.split(" ", 1)[0] in ("is", "holds", "does", "has")
    return f"This file {cause}" if joins else f"This file cannot be used: {cause}"


def limit_memory(more_bytes: int) -> None:
    """Limit this process to `more_bytes` beyond its present memory, once; Linux only."""
    if sys.platform != "linux":
        return
    import resource  # not on every platform

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        return
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    has_bytes = int(lines["VmData"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (has_bytes + more_bytes, hard))
