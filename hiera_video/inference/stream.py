"""Frames as they come: from a camera, a stream's URL, a pipe, or a file that is still written.

H, W, C: height, width, colours (RGB).
"""

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import av
import numpy as np

from hiera_video.data.decoders._clock import MAX_STEP_SEC, Clock, header_rate
from hiera_video.data.decoders._container import DecodeError, open_container
from hiera_video.data.decoders._packets import demux
from hiera_video.data.decoders._picture import display_matrix, pixel_ratio, square, upright
from hiera_video.utils.errors import UserError, cause_of

_KEY = "--stream"
# A URL that does not answer, or stops sending, for so long is given up.
_STALL_SEC = 10.0
_POLL_SEC = 0.05
# Where these carry it, a picture that is not taken at once waits for nobody.
_LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt")
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """A frame of a stream: seconds since its first one, and how to get its picture.

    `picture` returns uint8 RGB `[H, W, 3]`, upright. `is_late`: live pictures come faster than they
    are used.
    """

    time_sec: float
    picture: Callable[[], np.ndarray]
    is_late: bool = False


def stream_frames(
    source: str,
    *,
    fallback_fps: float,
    square_pixels: bool = True,
    wait_sec: float = 5.0,
    late_sec: float = 1.0,
) -> Iterator[StreamFrame]:
    """Yield the frames of a stream until it ends.

    `source` is a camera ("/dev/video0", or its number), a URL that FFmpeg knows (rtsp, http, ...),
    "-" for standard input, a named pipe, or a file, which has ended when it has not grown for
    `wait_sec`. `fallback_fps` is the rate of a stream without time stamps. A live stream is late
    when its pictures are used more than `late_sec` after they came. With `square_pixels`, pixels
    that are not square are shown as a player does.

    Raises:
        UserError: there is no such source, or it is no video.
    """
    live = _is_camera(source) or source.partition("://")[0] in _LIVE_SCHEMES
    container = _open(source, wait_sec)
    try:
        stream = next(iter(container.streams.video), None)
        if stream is None or stream.codec_context is None:
            raise UserError(f"{_KEY}: {source!r} has no picture that can be decoded.")
        ratio = pixel_ratio(stream) if square_pixels else Fraction(1)
        fps = float(header_rate(stream) or fallback_fps)
        # The sender's clock may restart.
        clock = Clock(step=1 / fps, max_step=MAX_STEP_SEC)
        began: float | None = None
        for frame in _decoded(container, stream, source):
            time_sec = float(clock.next(frame.time))
            began = time.monotonic() if began is None else began
            is_late = live and time.monotonic() - began - time_sec > late_sec
            yield StreamFrame(time_sec, partial(_picture, frame, ratio), is_late)
        if began is None:
            raise UserError(f"{_KEY}: {source!r} ended before its first picture.")
    finally:
        container.close()


def _decoded(container: Any, stream: Any, source: str) -> Iterator[av.VideoFrame]:
    """Yield the frames of a stream; what is damaged in between, or cut off at its end, is left."""
    packets = demux(container, stream)
    while True:
        try:
            packet = next(packets)
            frames = packet.decode()
        except (StopIteration, av.EOFError):
            return
        except av.InvalidDataError:
            continue
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{_KEY}: {source!r} broke off ({cause_of(error)}).") from None
        yield from frames


class _GrowingFile:
    """A file that somebody else still writes to; it ends where it has not grown for a while."""

    def __init__(self, file: Any, wait_sec: float) -> None:
        self._file = file
        self._wait_sec = wait_sec

    def read(self, size: int) -> bytes:
        """Return what is there, at most `size` bytes; wait for some if there is nothing."""
        give_up_at = time.monotonic() + self._wait_sec
        while not (found := self._file.read(size)) and time.monotonic() < give_up_at:
            time.sleep(_POLL_SEC)
        return found or b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(source: str, wait_sec: float) -> Any:
    """Open a source with PyAV."""
    source = source.removeprefix("file://")  # a file like any other, so no playlist
    try:
        if _is_camera(source):
            device = f"/dev/video{source}" if source.isdigit() else source
            if not os.path.exists(device):
                raise UserError(
                    f"{_KEY}: there is no such device as {device!r}. Try /dev/video0, a URL or a "
                    "file."
                )
            return av.open(os.path.abspath(device), format="v4l2")
        if "://" in source:  # a live playlist (m3u8) among them: who names it wants what it names
            return av.open(source, timeout=(_STALL_SEC, _STALL_SEC))
        if _is_finished(source):
            return open_container(source, source)
        # Unbuffered: what has come is used at once, and Ctrl-C is heard while nothing comes.
        descriptor = os.dup(0) if source == "-" else os.open(source, os.O_RDONLY)
        file = os.fdopen(descriptor, "rb", 0)
        if source == "-" or not stat.S_ISREG(os.stat(source).st_mode):
            wait_sec = 0.0  # the end of a pipe is an end
        return open_container(_GrowingFile(file, wait_sec), source)
    except DecodeError as error:
        raise UserError(f"{_KEY}: {source!r} {error.cause}") from None
    except FileNotFoundError:
        raise UserError(f"{_KEY}: {source!r}: no such file.") from None
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"{_KEY}: {source!r} cannot be opened as a video ({cause_of(error)}). Try a camera "
            "(/dev/video0), a URL, a pipe or a video file."
        ) from None


def _is_camera(source: str) -> bool:
    if source.isdigit() or source.startswith("/dev/video"):
        return True
    return os.path.exists(source) and stat.S_ISCHR(os.stat(source).st_mode) and source != "-"


def _is_finished(source: str) -> bool:
    """Say whether it is an mp4 that is not made of fragments: its index is written at its end."""
    if source == "-" or not os.path.isfile(source):
        return False
    with open(source, "rb") as file:
        head = file.read(_HEAD_BYTES)
    return head[4:8] == b"ftyp" and b"mvex" not in head


def _picture(frame: av.VideoFrame, ratio: Fraction) -> np.ndarray:
    matrix = display_matrix(frame)
    picture_HWC = upright(frame.to_ndarray(format="rgb24"), matrix)
    return square(picture_HWC[None], ratio, matrix)[0]
