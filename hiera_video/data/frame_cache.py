"""Keep decoded videos in shared memory, so that a run decodes the videos of a small list once.

The memory has a fixed size and all processes of a machine use it. The first process to read a video
decodes all its frames. If they fit, it copies them into the memory, where they stay for the run.
Nothing is evicted: an epoch reads every video once, so the oldest frames are needed as soon as the
newest. A video that does not fit is decoded each time it is read. The pixels are the same either
way, because frame k of a reader is the k-th of a full sequential decode.

    used, kept, refused         three numbers
    rows_N6                     one row of numbers for each video
    table of ticks, frames      of the first video, of the second, ... in the order of arrival

Shapes: N videos, F frames of a video, T requested frames or ticks, H height, W width.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import reduction
from typing import Any

import numpy as np

from hiera_video.data.decoders import DecodeError, Decoding, VideoReader, open_video
from hiera_video.data.decoders._reader import unique_indices
from hiera_video.data.decoders._timeline import checked_ticks
from hiera_video.data.workers.memory import Block, anonymous_file
from hiera_video.utils import dist

# States of a video. One that was claimed by a process that died since stays claimed.
_NEW, _CLAIMED, _KEPT = range(3)
_STATE, _START, _FRAMES, _HEIGHT, _WIDTH, _TICKS = range(6)
_ALIGNED_BYTES = 64
# A long video is decoded in parts, so that it is not in memory twice.
_FIRST_FRAMES = 32
_BYTES_AT_ONCE = 1 << 28


class FrameCache:
    """Decoded frames of up to `num_videos` videos, in at most `num_bytes` bytes of memory.

    A pickled copy uses the same memory. Videos are numbered by the caller, from 0.
    """

    def __init__(self, num_videos: int, num_bytes: int) -> None:
        self._map(anonymous_file(max(num_bytes, self.least_bytes(num_videos))), num_videos)
        self._counts_3[0] = self.least_bytes(num_videos)

    @staticmethod
    def least_bytes(num_videos: int) -> int:
        """Return the bytes that a cache needs to hold the numbers of its videos and no frame."""
        return _aligned((3 + 7 * num_videos) * 8)

    def _map(self, descriptor: int, num_videos: int) -> None:
        self._block = Block(descriptor)
        self.num_videos = num_videos
        self.num_bytes = self._block.num_bytes
        self._content = np.frombuffer(self._block.buffer(self.num_bytes), np.uint8)
        numbers = self._content[: (3 + 7 * num_videos) * 8].view(np.int64)
        self._counts_3 = numbers[:3]
        self._rows_N6 = numbers[3 : 3 + 6 * num_videos].reshape(num_videos, 6)
        self._fps_N = numbers[3 + 6 * num_videos :].view(np.float64)

    def __reduce__(self) -> tuple[Any, ...]:
        # Send the file descriptor to the other process, not the content.
        return _attach, (reduction.DupFd(self._block.descriptor), self.num_videos)

    @property
    def used_bytes(self) -> int:
        """The bytes in use; never more than `num_bytes`."""
        return int(self._counts_3[0])

    @property
    def num_kept(self) -> int:
        """The number of videos whose frames are kept."""
        return int(self._counts_3[1])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude the other processes; the lock of one that dies is released."""
        import fcntl  # not on every platform

        fcntl.lockf(self._block.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._block.descriptor, fcntl.LOCK_UN)

    @property
    def is_full(self) -> bool:
        """Whether a video was not kept because it did not fit."""
        return bool(self._counts_3[2])

    def holds(self, number: int) -> bool:
        """Return whether the frames of a video are kept."""
        with self._locked():
            return bool(self._rows_N6[number, _STATE] == _KEPT)

    def open(self, number: int, path: str, backend: str | Decoding = "auto") -> VideoReader:
        """Open video `number`, from memory if its frames are kept, and keep them if they fit.

        Raises DecodeError and UserError as `open_video` does.
        """
        if not self.holds(number) and self._rows_N6[number, _STATE] == _NEW:
            with open_video(path, backend=backend) as reader:
                self._keep(number, reader)
        if self.holds(number):
            return self._kept(number, path)
        return open_video(path, backend=backend)

    def _kept(self, number: int, path: str) -> "_KeptReader":
        _, start, num_frames, height, width, num_ticks = self._rows_N6[number].tolist()
        ticks_end = start + num_ticks * 8
        frames_end = ticks_end + num_frames * height * width * 3
        return _KeptReader(
            path,
            fps=float(self._fps_N[number]),
            frame_of_tick=self._content[start:ticks_end].view(np.int64),
            frames_FHWC=self._content[ticks_end:frames_end].reshape(num_frames, height, width, 3),
        )

    def _keep(self, number: int, reader: VideoReader) -> None:
        """Decode all frames into the memory, if they fit and no other process does the same.

        A video that does not decode to its end is not kept; a clip of it may still decode.
        """
        num_frames, num_ticks = reader.num_frames, reader.num_ticks
        try:
            # A short video is decoded in one go. Of a long one, this shows whether it fits.
            first_FHWC = reader.frames_at(range(min(num_frames, _FIRST_FRAMES)))
            frame_shape, frame_bytes = first_FHWC.shape[1:], first_FHWC[0].nbytes
            start = self._claim(number, num_ticks * 8 + num_frames * frame_bytes)
            if start is None:
                return
            first = start + num_ticks * 8
            frames_FHWC = self._content[first : first + num_frames * frame_bytes]
            frames_FHWC = frames_FHWC.reshape(num_frames, *frame_shape)
            frames_FHWC[: len(first_FHWC)] = first_FHWC
            step = max(_BYTES_AT_ONCE // frame_bytes, 1)
            for begin in range(len(first_FHWC), num_frames, step):
                end = min(begin + step, num_frames)
                frames_FHWC[begin:end] = reader.frames_at(range(begin, end))
        except DecodeError:
            self._claim(number, 0)  # so that the next epoch does not try again
            return
        self._content[start:first].view(np.int64)[:] = reader.ticks_to_frames(np.arange(num_ticks))
        with self._locked():
            self._fps_N[number] = reader.fps
            self._rows_N6[number] = (_KEPT, start, num_frames, *frame_shape[:2], num_ticks)
            self._counts_3[1] += 1

    def _claim(self, number: int, num_bytes: int) -> int | None:
        """Reserve memory for a video; return its start, or None if there is none for it."""
        with self._locked():
            if self._rows_N6[number, _STATE] != _NEW:
                return None
            self._rows_N6[number, _STATE] = _CLAIMED
            start = self.used_bytes
            if start + num_bytes > self.num_bytes:
                self._counts_3[2] += 1
                return None
            self._counts_3[0] = min(start + _aligned(num_bytes), self.num_bytes)
            return start


def _attach(descriptor: Any, num_videos: int) -> FrameCache:
    return _over(descriptor.detach(), num_videos)


def _over(descriptor: int, num_videos: int) -> FrameCache:
    """Return the cache in the memory of a descriptor; another process has made it."""
    cache = FrameCache.__new__(FrameCache)
    cache._map(descriptor, num_videos)
    return cache


def open_frame_cache(num_videos: int, num_bytes: int) -> FrameCache:
    """Open the cache that all processes of this machine share; all must call it.

    If the system does not let one process open the memory of another, each has its part of the
    bytes for itself.
    """
    if dist.local_world_size() == 1:
        return FrameCache(num_videos, num_bytes)
    leader = dist.local_rank() == 0
    cache = FrameCache(num_videos, num_bytes) if leader else None
    place = ("", (0, 0))
    if cache:
        descriptor = cache._block.descriptor
        place = (f"/proc/{os.getpid()}/fd/{descriptor}", _identity(descriptor))
    places = dist.gather(place)
    try:
        cache = cache or _opened(*places[dist.rank() - dist.local_rank()], num_videos)
    except OSError:
        cache = None
    if dist.agree(cache is None):
        return FrameCache(num_videos, num_bytes // dist.local_world_size())
    assert cache is not None
    return cache


def _opened(place: str, identity: tuple[int, int], num_videos: int) -> FrameCache:
    """Open the memory of another process; raise OSError if it is not the one that was meant."""
    descriptor = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    if _identity(descriptor) != identity:  # numbers of processes differ between containers
        os.close(descriptor)
        raise FileNotFoundError(place)
    return _over(descriptor, num_videos)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


class _KeptReader:
    """A video whose frames are in memory; see VideoReader."""

    file = ""

    def __init__(
        self, path: str, *, fps: float, frame_of_tick: np.ndarray, frames_FHWC: np.ndarray
    ) -> None:
        self.path = path
        self.num_frames = len(frames_FHWC)
        self.num_ticks = len(frame_of_tick)
        self.fps = fps
        self._frame_of_tick = frame_of_tick
        self._frames_FHWC = frames_FHWC

    def ticks_to_frames(self, ticks: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frame on screen at each tick; see VideoReader."""
        return self._frame_of_tick[checked_ticks(ticks, num_ticks=self.num_ticks)]

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return a copy of the frames at `indices`; see VideoReader."""
        wanted_U, place_T = unique_indices(indices, num_frames=self.num_frames, path=self.path)
        return self._frames_FHWC[wanted_U[place_T]]

    def close(self) -> None:
        """Do nothing: the frames stay in memory."""

    def __enter__(self) -> "_KeptReader":
        return self

    def __exit__(self, _kind: object, _error: object, _trace: object) -> None:
        self.close()


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
