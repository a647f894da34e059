"""The files of a distributed checkpoint's folder, and their sizes and checksums."""

import os
import zlib

import simplejson

from hiera_video.utils import disk, io
from hiera_video.utils.read_json import parse_json

PLAIN = "state.pyth"
INDEX = ".metadata"
_SUMS = "_sums.json"
_BLOCK_BYTES = 1 << 22


def write_sums(path: str, rank: int, names: set[str]) -> None:
    """Write size and checksum of the files that a rank has written to the folder."""
    sums = {name: _sum_of(os.path.join(path, name)) for name in sorted(names)}
    text = simplejson.dumps(sums).encode()
    target = os.path.join(path, f"__{rank}{_SUMS}")
    disk.write_atomic(target, lambda file: file.write(text))


def check_sums(path: str, names: set[str]) -> None:
    """Raise a ValueError if a file has another size or checksum than those written beside it."""
    sums: dict[str, list[int]] = {}
    for file in os.listdir(path):
        if file.endswith(_SUMS):
            with io.open_file(os.path.join(path, file)) as text:
                sums |= parse_json(text.read())
    for name in sorted(names):
        if _sum_of(os.path.join(path, name)) != sums.get(name):
            raise ValueError(f"size or checksum of {name}")


def _sum_of(file: str) -> list[int]:
    size, total = 0, 0
    with io.open_file(file, "rb") as content:
        while block := content.read(_BLOCK_BYTES):
            size += len(block)
            total = zlib.crc32(block, total)
    return [size, total]
