"""Kinds of files in which decoders that seek by themselves have been seen to go astray.

decord and torchcodec find their own way to a frame. In the files named here at least one of them
gave another frame than the one asked for, so that neither is let near them: PyAV, which checks each
step, reads them all.
"""

import av
import numpy as np
from av.video.frame import PictureType

from hiera_video.data.decoders._packets import PacketTable, decode

# Containers in which hundreds of videos encoded at random gave the right frames.
_RELIABLE = frozenset({"mov", "matroska", "avi"})

_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE; 0 is unknown, all above are interlaced

# How many of the listed key frames are decoded when a file is opened: each costs milliseconds.
_KEYS_TRIED = 4

# The types of frames that refer to others.
_REFERRING = (PictureType.P, PictureType.B, PictureType.S)

WAY_OUT = "Use DATA.DECODING_BACKEND auto or pyav."


def doubt_of_seeking(
    container: av.container.InputContainer, stream: av.VideoStream, table: PacketTable
) -> str:
    """Say why seeking in this file might end at another frame; "" if it is sure not to."""
    kinds = _RELIABLE.intersection(container.format.name.split(","))
    return _doubt_of_packets(table, kinds) or _doubt_of_codec(container, stream, table, kinds)


def _doubt_of_packets(table: PacketTable, kinds: frozenset[str]) -> str:
    """Return what the packets and the container (one of `kinds`) put in doubt, or ""."""
    if table.doubt:
        return table.doubt
    if not table.closed_groups:
        return "frames hidden, or shown out of the order of their groups"
    if not table.whole_keys:
        return "H.264 key frames that are not whole (intra refresh)"
    if not kinds:
        return "a container in which its seeks go astray"
    if "mov" in kinds and table.time_base >= 1:  # FFmpeg puts 1 for a missing one
        return "a time scale that is missing"
    return ""


def _doubt_of_codec(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    table: PacketTable,
    kinds: frozenset[str],
) -> str:
    """Return what the codec and the listed key frames put in doubt, or ""."""
    decoder = stream.codec_context
    if decoder is None:  # a codec that PyAV was built without
        return ""
    if "avi" in kinds and decoder.codec.canonical_name == "h264":
        return "H.264 in AVI, in which its seeks go astray"
    if "avi" in kinds and not _index_fits(stream, table):
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
    """Say whether decoding can start at the listed key frames after the first (at most a few)."""
    later_K = table.key_pts_K[1:]
    places = np.linspace(0, len(later_K) - 1, min(len(later_K), _KEYS_TRIED)).astype(int)
    return all(_key_decodes(container, stream, int(pts)) for pts in later_K[places])


def _key_decodes(
    container: av.container.InputContainer, stream: av.VideoStream, key_pts: int
) -> bool:
    """Say whether a seek to `key_pts` gives a whole key frame of that time."""
    try:
        container.seek(key_pts, stream=stream)
        for frame in decode(container, stream):
            if frame.pts is None or frame.pts >= key_pts:  # else the seek went further back
                # Decoders of Cinepak and its like mark no key frames: they leave out the type, too.
                is_key = frame.key_frame or frame.pict_type not in _REFERRING
                return frame.pts == key_pts and is_key and not frame.is_corrupt
    except av.FFmpegError:
        pass
    return False


def _index_fits(stream: av.VideoStream, table: PacketTable) -> bool:
    """Say whether the key frames that the index lists are those that come when all are read.

    Where damage has swallowed some frames, a seek by the index ends as many frames too early.
    """
    listed = [entry.timestamp for entry in stream.index_entries if entry.is_keyframe]
    return listed == table.key_pts_K.tolist()
