"""Kinds of files in which decoders that seek by themselves have been seen to go astray.

decord and torchcodec find their own way to a frame. In the files named here at least one of them
gave another frame than the one asked for, so that neither is let near them: PyAV, which checks each
step, reads them all.
"""

import av

from hiera_video.data.decoders._packets import PacketTable

# Containers in which hundreds of videos encoded at random gave the right frames.
_RELIABLE = frozenset({"mov", "matroska", "avi"})

_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE; 0 is unknown, all above are interlaced

WAY_OUT = "Use DATA.DECODING_BACKEND auto or pyav."


def doubt_of_seeking(
    container: av.container.InputContainer, stream: av.VideoStream, table: PacketTable
) -> str:
    """Say why seeking in this file might end at another frame; "" if it is sure not to."""
    if table.doubt:
        return table.doubt
    if not table.closed_groups:
        return "frames hidden, or shown out of the order of their groups"
    if not table.whole_keys:
        return "H.264 key frames that are not whole (intra refresh)"
    kinds = _RELIABLE.intersection(container.format.name.split(","))
    if not kinds:
        return "a container in which its seeks go astray"
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
    return ""


def _index_fits(stream: av.VideoStream, table: PacketTable) -> bool:
    """Say whether the key frames that the index lists are those that come when all are read.

    Where damage has swallowed some frames, a seek by the index ends as many frames too early.
    """
    listed = [entry.timestamp for entry in stream.index_entries if entry.is_keyframe]
    return listed == table.key_pts_K.tolist()
