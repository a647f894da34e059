"""Detect a truncated Matroska or WebM file, which FFmpeg's reader accepts without an error.

Layout by RFC 8794 (EBML): an element is an identifier, a size and that many bytes. The leading
zero bits of the identifier and of the size give their lengths. A size whose other bits are all
ones is unknown, as live streams write it.
"""

import os

_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def is_cut_off(path: str) -> bool:
    """Return whether the file ends before the end of its segment.

    False for other containers, and if the size of the segment is unknown.
    """
    with open(path, "rb") as file:
        if file.read(4) != _EBML_HEADER:
            return False
        header_bytes = _read_size(file.read(8))
        if header_bytes is None:
            return False
        length, size = header_bytes
        start = 4 + length + size
        file.seek(start)
        if file.read(4) != _SEGMENT:
            return False
        segment_bytes = _read_size(file.read(8))
    if segment_bytes is None:
        return False
    length, size = segment_bytes
    return os.path.getsize(path) < start + 4 + length + size


def _read_size(data: bytes) -> tuple[int, int] | None:
    """Return the length and the value of an EBML size; None if it is unknown or invalid."""
    length = 9 - data[0].bit_length() if data and data[0] else 0
    if not length or len(data) < length:
        return None
    bits = 7 * length
    value = int.from_bytes(data[:length], "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else (length, value)
