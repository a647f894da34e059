"""The interface of every decoder, and the checks of a file before decoding.

Shapes: T requested frames, H x W the upright picture, 3 the RGB channels.
"""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol, TypeVar

import numpy as np

from hiera_video.data.decoders._container import DecodeError
from hiera_video.data.decoders._picture import DisplayMatrix, square
from hiera_video.data.decoders._timeline import Timeline
from hiera_video.data.shards.members import ShardError, parse_member, read_member
from hiera_video.utils.disk import absolute
from hiera_video.utils.errors import cause_of
from hiera_video.utils.io import forget_download, is_url, local_path


class VideoReader(Protocol):
    """An opened video, for use in one thread; nothing is decoded before `frames_at`.

    `path` is the path given to `open_video`. `file` is the local path of the bytes, or "" for
    frames in memory; the file may be deleted once the string is no longer referenced. `num_frames`
    is the frame count that the file promises. Frame k is the k-th of a full sequential decode, in
    presentation order, with the rotation tag applied.

    Clips are chosen on a timeline of `num_ticks` equal steps, `fps` per second (0.0 if unknown), so
    that they run at a constant speed. If the frame rate is constant, tick k is frame k.
    """

    path: str
    file: str
    num_frames: int

    @property
    def num_ticks(self) -> int:
        """The duration of the video in ticks; `num_frames` if the frame rate is constant."""
        ...

    @property
    def fps(self) -> float:
        """Ticks per second, equal to frames per second if that is constant; 0.0 if unknown."""
        ...

    def ticks_to_frames(self, ticks: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frame on screen at each tick, int64, in the shape of `ticks`.

        Raises:
            IndexError: a tick is outside [0, num_ticks - 1].
        """
        ...

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at `indices` as uint8 RGB [T,H,W,3]; any order, repeats allowed.

        Raises:
            DecodeError: fewer frames decode than the file promises; the message has both numbers.
            IndexError: an index is outside [0, num_frames - 1].
        """
        ...

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        ...

    def __enter__(self) -> "VideoReader": ...

    def __exit__(self, _kind: object, error: object, _trace: object) -> None: ...


_Reader = TypeVar("_Reader", bound="BaseReader")


class BaseReader(ABC):
    """Base of the readers: implements the timeline, and closes the file at the end of a `with`.

    `frames_at` returns pixels as stored. `pixel_ratio` is the width of a pixel over its height
    before the picture is rotated. If the ratio is not 1, `matrix` is the display matrix that was
    applied to the frames read last.
    """

    path: str
    file: str
    num_frames: int
    timeline: Timeline
    pixel_ratio: Fraction = Fraction(1)
    matrix: DisplayMatrix | None = None

    @property
    def num_ticks(self) -> int:
        """The duration of the video in ticks; see VideoReader."""
        return self.timeline.num_ticks

    @property
    def fps(self) -> float:
        """Ticks per second; see VideoReader."""
        return self.timeline.fps

    def ticks_to_frames(self, ticks: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frame on screen at each tick; see VideoReader."""
        return self.timeline.ticks_to_frames(ticks)

    @abstractmethod
    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at `indices` as uint8 RGB [T,H,W,3]; see VideoReader."""

    @abstractmethod
    def close(self) -> None:
        """Close the file; a second call does nothing."""

    def __enter__(self: _Reader) -> _Reader:
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        self.close()
        if isinstance(error, DecodeError):
            forget_damaged(self.path)


def fetch_file(path: str) -> str:
    """Return an absolute local path for a file, a URL or a video in a shard, fetching it if needed.

    iopath downloads a URL once. For a video in a shard or from a signed URL, the file is deleted
    together with the returned string, so keep a reference to it.

    Raises DecodeError if the fetch fails, or if the file is missing, a directory, empty or
    unreadable.
    """
    if member := parse_member(path):
        try:
            return read_member(member)
        except ShardError as error:
            raise DecodeError(path, str(error)) from None
    try:
        here = local_path(path)
    except Exception as error:  # iopath's handlers raise exceptions of many types
        raise DecodeError(path, f"cannot be fetched ({cause_of(error)}).") from None
    _refuse_unreadable(path, here)
    if type(here) is not str:  # a subclass of str that deletes its file when it is released
        return here
    # FFmpeg, which all decoders use, reads a relative name with a colon as a protocol.
    return absolute(here)


def _refuse_unreadable(path: str, here: str) -> None:
    """Raise DecodeError unless `here`, the local file of `path`, is a regular file with content."""
    try:
        found = os.stat(here)
    except (FileNotFoundError, NotADirectoryError):
        raise DecodeError(path, "no such file.") from None
    except PermissionError:
        raise DecodeError(path, "may not be read (no permission for its folder).") from None
    except (OSError, ValueError) as error:  # a long name, a NUL in the name, a failing disk
        raise DecodeError(path, f"cannot be read ({cause_of(error)}).") from None
    if stat.S_ISDIR(found.st_mode):
        raise DecodeError(path, "is a directory, not a video file.")
    if not stat.S_ISREG(found.st_mode):
        raise DecodeError(path, "is a pipe, socket or device, not a video file.")
    if not os.access(here, os.R_OK):
        raise DecodeError(path, "may not be read (no permission).")
    if found.st_size == 0:
        raise DecodeError(path, "is empty (0 bytes).")


def forget_damaged(path: str) -> None:
    """Remove the downloaded copy of a URL that did not decode; the next use downloads it again."""
    if is_url(path):
        forget_download(path)


def unique_indices(
    indices: Sequence[int] | np.ndarray, *, num_frames: int, path: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted distinct indices [U], and the position in them of each requested index [T].

    Raises IndexError for an index outside [0, num_frames - 1], ValueError if there are no indices.
    """
    wanted_T = np.asarray(indices)
    if wanted_T.size == 0:
        raise ValueError(f"{path}: indices must name at least one frame.")
    if wanted_T.ndim != 1 or wanted_T.dtype.kind not in "iu":
        raise ValueError(f"{path}: indices must be a row of whole numbers, got {indices!r}.")
    low, high = int(wanted_T.min()), int(wanted_T.max())
    if low < 0 or high >= num_frames:
        raise IndexError(f"{path}: frames {low}..{high} asked for, of 0..{num_frames - 1}.")
    wanted_U, place_T = np.unique(wanted_T.astype(np.int64), return_inverse=True)
    return wanted_U, place_T


def as_asked(frames_UHWC: np.ndarray, place_T: np.ndarray) -> np.ndarray:
    """Reorder the frames as requested, [T,H,W,3]; return the same array if the order is right."""
    in_order = len(place_T) == len(frames_UHWC) and bool(np.all(np.diff(place_T) > 0))
    return frames_UHWC if in_order else frames_UHWC[place_T]


class SquareReader(BaseReader):
    """Wraps a reader and resizes its frames to square pixels; see VideoReader."""

    def __init__(self, reader: BaseReader) -> None:
        self._reader = reader
        self.path = reader.path
        self.file = reader.file
        self.num_frames = reader.num_frames
        self.timeline = reader.timeline

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at `indices` as uint8 RGB [T,H,W,3]; see VideoReader.frames_at."""
        frames_THWC = self._reader.frames_at(indices)
        return square(frames_THWC, self._reader.pixel_ratio, self._reader.matrix)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reader.close()
