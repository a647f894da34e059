"""Detect the kinds of files in which decord or torchcodec can return wrong frames.

Both decoders seek by themselves. In each kind of file listed here, at least one of them returned
another frame than the requested one, so both refuse these files. PyAV, whose reader checks each
step, reads all of them.
"""

import av
import numpy as np
from av.video.frame import PictureType

from hiera_video.data.decoders._packets import PacketTable, decode

# Containers in which hundreds of randomly encoded videos gave the right frames.
_RELIABLE = frozenset({"mov", "matroska", "avi"})

_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE; 0 is unknown, higher values are interlaced

# The number of listed key frames that are decoded when a file is opened; each costs milliseconds.
_KEYS_TRIED = 4

# The types of frames that depend on other frames.
_REFERRING = (PictureType.P, PictureType.B, PictureType.S)

WAY_OUT = "Use DATA.DECODING_BACKEND auto or pyav."


def doubt_of_seeking(
    container: av.container.InputContainer, stream: av.VideoStream, table: PacketTable
) -> str:
    """Return the reason why seeking in this file may reach a wrong frame; "" if it cannot."""
    kinds = _RELIABLE.intersection(container.format.name.split(","))
    return _doubt_of_packets(table, kinds) or _doubt_of_codec(container, stream, table, kinds)


def _doubt_of_packets(table: PacketTable, kinds: frozenset[str]) -> str:
    """Return the reason in the packets or the container (one of `kinds`), or ""."""
    if table.doubt:
        return table.doubt
    if not table.closed_groups:
        return "frames hidden, or shown out of the order of their groups"
    if not table.whole_keys:
        return "H.264 key frames that are not whole (intra refresh)"
    if not kinds:
        return "a container in which its seeks go astray"
    if "mov" in kinds and table.time_base >= 1:  # FFmpeg uses 1 if it is missing
        return "a time scale that is missing"
    return ""


def _doubt_of_codec(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    table: PacketTable,
    kinds: frozenset[str],
) -> str:
    """Return the reason in the codec or the listed key frames, or ""."""
    decoder = stream.codec_context
    if decoder is None:  # PyAV was built without this codec
        return ""
    if "avi" in kinds and decoder.codec.canonical_name == "h264":
        return "H.264 in AVI, in which its seeks go astray"
    # If damage removed some frames, a seek by the index ends that many frames too early.
    if "avi" in kinds and table.key_pts_K.tolist() != [
        entry.timestamp for entry in stream.index_entries if entry.is_keyframe
    ]:
        return "an index that does not fit its frames"
    if decoder.field_order > _PROGRESSIVE:
        return "interlaced frames"
    if len(table.key_pts_K) == len(table.pts_N) > 1 and not decoder.codec.intra_only:
        return "every frame marked as a key frame"
    if not decoder.codec.intra_only and not _keys_decode(container, stream, table):
        return "a listed key frame from which it does not decode"
    return ""


def _keys_decode(
    container: av.container.InputContainer, stream: av.VideoStream, table: PacketTable
) -> bool:
    """Try to decode from a few of the listed key frames after the first; return whether all do."""
    later_K = table.key_pts_K[1:]
    places = np.linspace(0, len(later_K) - 1, min(len(later_K), _KEYS_TRIED)).astype(int)
    return all(_key_decodes(container, stream, int(pts)) for pts in later_K[places])


def _key_decodes(
    container: av.container.InputContainer, stream: av.VideoStream, key_pts: int
) -> bool:
    """Return whether a seek to `key_pts` yields an intact key frame with that time."""
    try:
        container.seek(key_pts, stream=stream)
        for frame in decode(container, stream):
            if frame.pts is None or frame.pts >= key_pts:  # else the seek went further back
                # Decoders such as Cinepak's mark no key frames and set no frame type.
                is_key = frame.key_frame or frame.pict_type not in _REFERRING
                return frame.pts == key_pts and is_key and not frame.is_corrupt
    except av.FFmpegError:
        pass
    return False
