"""Read videos inside tar files (shards), and order videos so that few shards are in use at a time.

The path of such a video is `SHARD::MEMBER@OFFSET+SIZE`: the tar file or its URL, the name of the
file in it, and the position of its bytes. The path is complete: any process can read any video
without reading an index.

Legend: N videos, S shards.
"""

import os
import re
import tempfile
import weakref
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from tarfile import BLOCKSIZE, HeaderError, TarInfo
from typing import IO

import numpy as np

from hiera_video.data.shards.cache import cached_shard, drop_damaged, open_shard
from hiera_video.utils.disk import anonymous_memory
from hiera_video.utils.errors import cause_of
from hiera_video.utils.io import is_url

_PATH = re.compile(
    r"(?P<shard>.+)::(?P<name>.+)@(?P<offset>[0-9]{1,40})\+(?P<size>[0-9]{1,40})", re.DOTALL
)
# A member's name may contain "::", so its colons are escaped. The URL of a shard is not escaped.
_ESCAPES = {"%": "%25", ":": "%3A"}

_COPY_BYTES = 1 << 20
# Tar stores longer names in an extra header. Some tar files do so for names that are not ASCII.
_NAME_BYTES = 100

WINDOW = 8


class ShardError(Exception):
    """A video cannot be read from its shard; the text is the cause, in the form for DecodeError."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar file; its bytes are [offset, offset + size)."""

    shard: str
    name: str
    offset: int
    size: int

    @property
    def path(self) -> str:
        """The path of the video, as in VideoRecord and for `open_video`."""
        name = "".join(_ESCAPES.get(letter, letter) for letter in self.name)
        return f"{self.shard}::{name}@{self.offset}+{self.size}"


def parse_member(path: str) -> Member | None:
    """Parse the path of a video in a shard; return None for any other path."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    name = match["name"].replace("%3A", ":").replace("%25", "%")
    return Member(match["shard"], name, int(match["offset"]), int(match["size"]))


def file_behind(path: str) -> str:
    """Return the file or URL that holds a video: its shard, or the path itself."""
    member = parse_member(path)
    return member.shard if member else path


class HeldFile(str):
    """A local path whose file exists as long as this object, or until `close`.

    It is a string, so it works wherever a path does.
    """

    _release: weakref.finalize

    @classmethod
    def new(cls, name: str) -> "HeldFile":
        """Create an empty file, in memory if the system can (Linux), else a temporary file."""
        memory = anonymous_memory(name)
        if memory is not None:
            held = cls(f"/proc/self/fd/{memory}")
            held._release = weakref.finalize(held, os.close, memory)
        else:
            descriptor, path = tempfile.mkstemp(suffix=os.path.splitext(name)[1])
            os.close(descriptor)
            held = cls(path)
            held._release = weakref.finalize(held, os.unlink, path)
        return held

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        self._release()


def read_member(member: Member) -> HeldFile:
    """Copy a video from its shard into memory; return a local path to the copy.

    The copy belongs to this process, as the shard may be removed from the cache at any time. Raises
    ShardError if the shard is missing, cannot be fetched, is truncated, or is not the one that the
    path was written for.
    """
    if member.size == 0:
        raise ShardError("is empty (0 bytes).")
    try:
        return _read(member)
    except ShardError:
        if is_url(member.shard):
            drop_damaged(member.shard)
        raise


def _read(member: Member) -> HeldFile:
    try:
        with open_shard(member.shard) as tar:
            _check_header(tar, member)
            held = HeldFile.new("video")
            try:
                _copy(tar, member, held)
            except BaseException:
                held.close()
                raise
            return held
    except FileNotFoundError:
        raise ShardError(f"its shard is missing: no such file as {member.shard}.") from None
    except OSError as error:
        raise ShardError(f"its shard cannot be read or fetched ({cause_of(error)}).") from None
    except (ValueError, OverflowError) as error:  # a NUL in its name, an offset beyond 2^63
        raise ShardError(f"its shard cannot be read ({error}).") from None


def _check_header(tar: IO[bytes], member: Member) -> None:
    """Raise ShardError unless the tar header before the member's bytes matches `member`."""
    tar.seek(max(member.offset - BLOCKSIZE, 0))
    block = tar.read(BLOCKSIZE)
    if len(block) < BLOCKSIZE:
        raise _breaks_off(0, member)
    try:
        header = TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except HeaderError:
        header = TarInfo()
    plain = member.name.isascii() and len(member.name) <= _NAME_BYTES
    if header.size != member.size or (plain and header.name != member.name):
        raise ShardError(
            "its shard holds something else at this place: it was rewritten, and its index was not."
        )


def _copy(tar: IO[bytes], member: Member, target: str) -> None:
    left = member.size
    with open(target, "wb") as file:
        while left:
            block = tar.read(min(left, _COPY_BYTES))
            if not block:
                raise _breaks_off(member.size - left, member)
            file.write(block)
            left -= len(block)


def _breaks_off(num_bytes: int, member: Member) -> ShardError:
    return ShardError(f"its shard breaks off: {num_bytes} of its {member.size} bytes are there.")


def fetch_shard(path: str) -> None:
    """Download the video's shard if it is remote.

    The download time depends on the size and the network, so call this before a deadline for
    decoding begins. Raises nothing: if the download fails, reading the video raises the error.
    """
    member = parse_member(path)
    if member is not None and is_url(member.shard):
        try:
            cached_shard(member.shard)
        except (OSError, ValueError):
            return


def remote_shard_numbers(paths: Iterable[str]) -> np.ndarray | None:
    """Return the number of each video's shard, int32 [N], or None if no shard is remote.

    Shards are numbered from 0 in the order of their first appearance. Local shards need no special
    order: all videos in them are equally fast to reach.
    """
    numbers: dict[str, int] = {}
    is_remote = False
    shard_of_video_N = array("i")
    for path in paths:
        shard = file_behind(path)
        is_remote = is_remote or (shard != path and is_url(shard))
        shard_of_video_N.append(numbers.setdefault(shard, len(numbers)))
    return np.array(shard_of_video_N, dtype=np.int32) if is_remote else None


def shard_order(
    shard_of_video_N: np.ndarray, rng: np.random.Generator, window: int = WINDOW
) -> np.ndarray:
    """Return a random order of the videos that uses few shards at a time, int64 [N].

    The shards are shuffled and split into groups of `window`, and the videos are shuffled within
    each group. So each video occurs once, and each shard is used in one stretch of the order. A
    cache that holds `window` shards fetches every shard once per epoch. A cache of two windows is
    better, as the next window is fetched while the last is in use. If `window` covers all shards,
    this is a plain shuffle. The numbers in `shard_of_video_N` are >= 0, and `window` is >= 1. The
    order depends only on the arguments.
    """
    if window < 1:
        raise ValueError(f"window must be 1 or more, got {window}.")
    num_shards = int(shard_of_video_N.max(initial=-1)) + 1
    place_S = rng.permutation(num_shards)
    group_N = place_S[shard_of_video_N] // window
    # Sort by group, and within a group by a random number.
    return np.lexsort((rng.random(len(shard_of_video_N)), group_N))
