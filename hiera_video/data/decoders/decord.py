"""Read videos with decord, where its answer agrees with that of a full sequential decode.

decord takes a key frame's place in the order of decoding for its place in the order of showing;
where the two differ (open groups of pictures) a seek ends at a neighbour. It also counts packets
that never become a frame, and may then wait for one for ever. So the packets are looked at first,
through PyAV, and a file of a kind that it is known to get wrong is refused. Not found out in this
way: a picture that changes size on the way, which it scales to the size of its first frame.

The frames are PyAV's bit for bit where the picture is 8-bit and its height even; elsewhere colours
differ at their edges, as decord's older FFmpeg interpolates chroma in another way.
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

# decord hands out the nearest frame for one that does not decode; this share of the frames is what
# it may do that for before it raises. 0 means "any number", so: less than one frame in 10,000.
_REPLACED_FRAMES = 0.0001

# It makes room for as many frames as the header states; without end, that ends the process.
_MAX_MISSING_FRAMES = 1_000_000


def open_video(path: str, *, file: str) -> "DecordReader":
    """Open a video with decord; raises DecodeError if it cannot be read, or not be relied on."""
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
    """Say why decord's answer might not be that of a sequential decode; "" if it is sure to be."""
    doubt = doubt_of_seeking(container, stream, table)
    if doubt:
        return doubt
    if stream.frames > table.num_frames + _MAX_MISSING_FRAMES:
        return f"a header that states {stream.frames} frames"
    if len(container.streams.video) > 1:
        return "several video streams, of which it chooses by older rules"
    kinds = container.format.name.split(",")
    if "matroska" not in kinds:  # its index need not list all of them
        num_listed = sum(entry.is_keyframe for entry in stream.index_entries)
        if num_listed != len(table.key_pts_K):
            return "a wrong list of key frames"
    matrix = first_matrix(container, stream)
    if matrix is not None and ("mov" not in kinds or matrix.is_mirrored):
        return "a display matrix that it does not follow"
    return ""


class DecordReader(BaseReader):
    """An opened video; see VideoReader. Holds one file and one single-threaded decoder."""

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
        """Raise if there are fewer frames than promised: decord may wait for the rest for ever."""
        if num_found < self.num_frames:
            last = self.num_frames - 1
            raise too_few(self.path, decoded=num_found, promised=self.num_frames, index=last)

    def close(self) -> None:
        """Close the file; harmless the second time."""
        self._reader = None
