"""Read videos with decord, if its frames agree with those of a full sequential decode.

decord assumes that a key frame has the same position in decoding order and in presentation order.
If the two differ (open groups of pictures), a seek ends at a neighbouring frame. decord also counts
packets that never become a frame, and may then wait for one forever. So PyAV first reads the
packets, and a file of a kind that decord is known to get wrong is refused. One case remains: if the
picture changes size within the video, decord scales it to the size of the first frame.

The frames are identical to PyAV's bit for bit if the picture is 8-bit and its height is even.
Otherwise colours differ at edges, because decord's older FFmpeg interpolates chroma differently.
"""

from collections.abc import Sequence
from functools import cache
from types import ModuleType

import av
import numpy as np

from hiera_video.data.decoders._container import DecodeError, too_few
from hiera_video.data.decoders._doubts import WAY_OUT, doubt_of_seeking
from hiera_video.data.decoders._packets import PacketTable, count_decodable, open_stream, scan
from hiera_video.data.decoders._picture import first_matrix, pixel_ratio
from hiera_video.data.decoders._reader import BaseReader, as_asked, unique_indices
from hiera_video.data.decoders._timeline import timeline_of
from hiera_video.utils.errors import UserError

# decord replaces a frame that does not decode by the nearest one. It raises if it replaces more
# than this fraction of the frames. 0 means no limit, so use less than one frame in 10,000.
_REPLACED_FRAMES = 0.0001

# decord allocates memory for as many frames as the header states, which can kill the process.
_MAX_MISSING_FRAMES = 1_000_000


def open_video(path: str, *, file: str) -> "DecordReader":
    """Open a video with decord; raises DecodeError if decord cannot read it reliably."""
    return DecordReader(path, file)


def check_available() -> None:
    """Raise UserError if decord is not installed."""
    _decord()


@cache
def _decord() -> ModuleType:
    try:
        import decord
    except (ImportError, OSError) as error:
        raise UserError(
            f"DATA.DECODING_BACKEND must be a decoder that is installed, got decord ({error}). "
            "Try auto, or pip install decord."
        ) from None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _doubt(
    container: av.container.InputContainer, stream: av.VideoStream, table: PacketTable
) -> str:
    """Return the reason why decord may return wrong frames for this file; "" if it does not."""
    doubt = doubt_of_seeking(container, stream, table)
    if doubt:
        return doubt
    if stream.frames > table.num_frames + _MAX_MISSING_FRAMES:
        return f"a header that states {stream.frames} frames"
    if len(container.streams.video) > 1:
        return "several video streams, and it selects one by older rules"
    kinds = container.format.name.split(",")
    if "matroska" not in kinds:  # a Matroska index need not list all key frames
        num_listed = sum(entry.is_keyframe for entry in stream.index_entries)
        if num_listed != len(table.key_pts_K):
            return "a wrong list of key frames"
    matrix = first_matrix(container, stream)
    if matrix is not None and ("mov" not in kinds or matrix.is_mirrored):
        return "a display matrix that it does not follow"
    return ""


class DecordReader(BaseReader):
    """Reads one video with one single-threaded decord decoder; see VideoReader."""

    def __init__(self, path: str, file: str) -> None:
        self.path = path
        self.file = file
        container, stream = open_stream(self.file, path)
        with container:
            table = scan(container, stream)
            self.num_frames = table.num_frames
            if self.num_frames == 0:
                raise DecodeError(path, "holds a video stream without frames.")
            self.timeline = timeline_of(table, num_frames=table.num_frames)
            self._require(len(table.pts_N))
            doubt = _doubt(container, stream, table)
            self.pixel_ratio = pixel_ratio(stream)
            if self.pixel_ratio != 1:
                self.matrix = first_matrix(container, stream)
        if doubt:
            raise DecodeError(path, f"decord cannot be relied on here ({doubt}). {WAY_OUT}")
        decord = _decord()
        try:
            self._reader = decord.VideoReader(
                self.file, ctx=decord.cpu(0), num_threads=1, fault_tol=_REPLACED_FRAMES
            )
        except (decord.DECORDError, RuntimeError):
            raise DecodeError(path, f"decord cannot open its codec or format. {WAY_OUT}") from None
        self._require(len(self._reader))

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at `indices` as uint8 RGB [T,H,W,3]; see VideoReader.frames_at."""
        wanted_U, place_T = unique_indices(indices, num_frames=self.num_frames, path=self.path)
        decord = _decord()
        try:
            frames_UHWC = self._reader.get_batch(wanted_U.tolist()).asnumpy()
        except (decord.DECORDError, decord.DECORDLimitReachedError):
            decoded, _damaged = count_decodable(self.file, self.path)
            self._require(decoded)
            raise DecodeError(self.path, f"decord fails to decode it. {WAY_OUT}") from None
        return as_asked(frames_UHWC, place_T)

    def _require(self, num_found: int) -> None:
        """Raise if frames are missing, because decord may wait for them forever."""
        if num_found < self.num_frames:
            last = self.num_frames - 1
            raise too_few(self.path, decoded=num_found, promised=self.num_frames, index=last)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reader = None
