"""Read videos with torchcodec, if its frames agree with those of a full sequential decode.

torchcodec numbers frames by their packets and finds them by time. If times are guessed (B-frames in
AVI), or a seek ends after its target (MPEG-TS), it returns a neighbouring frame. Files of such
kinds are refused. torchcodec also returns the time of each frame, which is compared with the
packets.

It decodes with the FFmpeg libraries of the system, which determine the available codecs. The frames
are identical to PyAV's bit for bit if the picture is 8-bit and its height is even. Otherwise
colours may differ at edges, because versions of FFmpeg interpolate chroma differently.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from hiera_video.data.decoders._container import DecodeError, too_few
from hiera_video.data.decoders._doubts import WAY_OUT, doubt_of_seeking
from hiera_video.data.decoders._packets import count_decodable, open_stream, scan
from hiera_video.data.decoders._picture import first_matrix, pixel_ratio
from hiera_video.data.decoders._reader import BaseReader, as_asked, unique_indices
from hiera_video.data.decoders._timeline import timeline_of
from hiera_video.utils.errors import UserError

# The exceptions that torchcodec raises for a file that it cannot read; it has no class of its own.
_FAILURES = (RuntimeError, ValueError, IndexError, OSError)


def open_video(path: str, *, file: str) -> "TorchcodecReader":
    """Open a video with torchcodec; raises DecodeError if torchcodec cannot read it reliably."""
    return TorchcodecReader(path, file)


def check_available() -> None:
    """Raise UserError if torchcodec is not installed or does not find FFmpeg's libraries."""
    _decoder_class()


@cache
def _decoder_class() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError as error:
        raise _not_installed(str(error), "pip install torchcodec") from None
    except (OSError, RuntimeError):
        # Its own message is several pages: a traceback for each version of FFmpeg that it tried.
        raise _not_installed(
            "installed, but its libraries do not load",
            "install FFmpeg's shared libraries (apt-get install ffmpeg), and the torchcodec "
            "made for the installed torch",
        ) from None
    return VideoDecoder


def _not_installed(cause: str, way_out: str) -> UserError:
    return UserError(
        "DATA.DECODING_BACKEND must be a decoder that is installed, got torchcodec "
        f"({cause}). Try auto, or {way_out}."
    )


class TorchcodecReader(BaseReader):
    """Reads one video with one single-threaded torchcodec decoder; see VideoReader."""

    def __init__(self, path: str, file: str) -> None:
        self.path = path
        self.file = file
        container, stream = open_stream(self.file, path, needs_decoder=False)
        with container:
            self._table = scan(container, stream)
            doubt = doubt_of_seeking(container, stream, self._table)
            self._stream_index = stream.index
            self.pixel_ratio = pixel_ratio(stream)
            if self.pixel_ratio != 1:
                self.matrix = first_matrix(container, stream)
        if doubt:
            raise DecodeError(path, f"torchcodec cannot be relied on here ({doubt}). {WAY_OUT}")
        self.num_frames = self._table.num_frames
        if self.num_frames == 0:
            raise DecodeError(path, "holds a video stream without frames.")
        self.timeline = timeline_of(self._table, num_frames=self.num_frames)
        self._decoder: Any = self._open_decoder()
        if self._decoder.metadata.rotation is not None:
            self._check_matrix()

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at `indices` as uint8 RGB [T,H,W,3]; see VideoReader.frames_at."""
        wanted_U, place_T = unique_indices(indices, num_frames=self.num_frames, path=self.path)
        if wanted_U[-1] >= len(self._table.pts_N):  # promised by the header, but not in the file
            raise self._failure(wanted_U)
        decoder, self._decoder = self._decoder or self._open_decoder(), None
        try:
            batch = decoder.get_frames_at(wanted_U.tolist())
        except _FAILURES:
            raise self._failure(wanted_U) from None
        self._check_times(wanted_U, batch.pts_seconds.numpy())
        # Keep the decoder only after success: after an error, it would continue without some data.
        self._decoder = decoder
        return as_asked(batch.data.numpy(), place_T)

    def _open_decoder(self) -> Any:
        decoder_class = _decoder_class()
        try:
            return decoder_class(
                self.file,
                stream_index=self._stream_index,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                seek_mode="exact",
            )
        except _FAILURES:
            cause = f"torchcodec cannot open its codec or format. {WAY_OUT}"
            raise DecodeError(self.path, cause) from None

    def _check_matrix(self) -> None:
        """Raise unless torchcodec applies the display matrix: right angles without mirroring."""
        container, stream = open_stream(self.file, self.path, needs_decoder=False)
        with container:
            matrix = first_matrix(container, stream)
        if matrix is None or matrix.is_mirrored or not matrix.is_right_angle:
            cause = f"torchcodec does not follow its display matrix. {WAY_OUT}"
            raise DecodeError(self.path, cause)

    def _check_times(self, wanted_U: np.ndarray, times_U: np.ndarray) -> None:
        """Raise unless the times of the returned frames match those of the packets."""
        expected_U = self._table.pts_N[wanted_U] * float(self._table.time_base)
        # Compare to within half a unit, because torchcodec returns times in seconds.
        if np.abs(times_U - expected_U).max() > float(self._table.time_base) / 2:
            raise DecodeError(self.path, f"torchcodec gave the frame of another time. {WAY_OUT}")

    def _failure(self, wanted_U: np.ndarray) -> DecodeError:
        decoded, _damaged = count_decodable(self.file, self.path)
        missing_U = wanted_U[wanted_U >= decoded]
        if len(missing_U) and decoded < self.num_frames:
            first = int(missing_U[0])
            return too_few(self.path, decoded=decoded, promised=self.num_frames, index=first)
        return DecodeError(self.path, f"torchcodec fails to decode it. {WAY_OUT}")

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._decoder = None
