"""Shards that lie elsewhere, on this machine: fetched once, the least used removed for new ones.

HIERA_VIDEO_SHARD_CACHE is the folder (default: `shards` in iopath's cache), and
HIERA_VIDEO_SHARD_CACHE_GIB what it may hold (50). Both are the machine's business, not a run's, and
so no config keys. Any number of processes may share the folder.
"""

import math
import os
import shutil
import time
from contextlib import suppress
from typing import IO, Any
from urllib.parse import urlsplit

from iopath.common.file_io import file_lock, get_cache_dir

from hiera_video.utils.errors import UserError
from hiera_video.utils.io import cached_path, is_url, path_manager, write_atomic

FOLDER_VARIABLE = "HIERA_VIDEO_SHARD_CACHE"
SIZE_VARIABLE = "HIERA_VIDEO_SHARD_CACHE_GIB"
DEFAULT_GIB = 50.0

# Another process may remove a shard between its download and its use; not time after time, unless
# the cache holds fewer shards than there are processes.
_TRIES = 5
# No download takes so long without writing: what is left of a process that was killed.
_STALE_SEC = 3600.0
_NOT_SHARDS = (".lock", ".tmp")


def cache_folder() -> str:
    """Return the folder of the cache; it need not be there yet."""
    return os.environ.get(FOLDER_VARIABLE) or os.path.join(get_cache_dir(), "shards")


def cache_limit_bytes() -> int:
    """Return how much the cache may hold; raises UserError for a limit that is no number."""
    text = os.environ.get(SIZE_VARIABLE) or str(DEFAULT_GIB)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise UserError(f"{SIZE_VARIABLE} must be a number above 0, in GiB, got {text!r}.")
    return int(limit * 2**30)


def open_shard(shard: str) -> IO[bytes]:
    """Open a tar file, or the copy of one that a URL names, to read.

    Once open it stays readable, whatever becomes of the cache. Raises OSError.
    """
    if not is_url(shard):
        return open(shard, "rb")
    for _ in range(_TRIES):
        try:
            file = open(cached_shard(shard), "rb")  # noqa: SIM115  (the caller closes it)
        except FileNotFoundError:
            continue
        _mark_used(file.name)
        return file
    raise OSError(f"{SIZE_VARIABLE} is too small for the processes that share the cache")


def cached_shard(url: str) -> str:
    """Return the path of the copy of a remote shard, fetching it if it is not there.

    http and https go through iopath, other schemes through fsspec (s3://, gs:// and so on, each of
    which has a package of its own). Raises OSError, in their words.
    """
    folder = cache_folder()
    target = cached_path(url, folder)
    if os.path.isfile(target):
        return target
    if urlsplit(url).scheme in ("http", "https"):
        path_manager().get_local_path(url, cache_dir=folder)
    else:
        with file_lock(target):
            if not os.path.isfile(target):
                write_atomic(target, lambda file: _fetch(url, file))
    make_room(folder, cache_limit_bytes(), keep=target)
    return target


def _fetch(url: str, file: IO[bytes]) -> None:
    import fsspec

    try:
        with fsspec.open(url, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
    except FileNotFoundError:
        raise OSError("no such file") from None  # there, and not in the cache
    except OSError:
        raise
    except Exception as error:  # of a storage's own library; fsspec names the package that lacks
        raise OSError(f"{type(error).__name__}: {error}") from None


def make_room(folder: str, limit_bytes: int, *, keep: str) -> None:
    """Remove the shards longest unused until the folder holds `limit_bytes`; never `keep`.

    Left-overs of downloads that were killed go too.
    """
    with file_lock(os.path.join(folder, "room")):
        shards = _shards(folder)
        too_much = sum(size for _, size, _ in shards) - limit_bytes
        for _, size, path in sorted(shards):
            if too_much <= 0:
                return
            if path != keep:
                with suppress(OSError):  # still open, where the system minds that
                    os.unlink(path)
                too_much -= size


def _shards(folder: str) -> list[tuple[float, int, str]]:
    """Return (time of last use, bytes, path) of all shards; remove what downloads left."""
    found: list[tuple[float, int, str]] = []
    for entry in os.scandir(folder):
        with suppress(OSError):
            state: Any = entry.stat()
            if entry.name.endswith(".tmp") and state.st_mtime < time.time() - _STALE_SEC:
                os.unlink(entry.path)
            elif entry.is_file() and not entry.name.endswith(_NOT_SHARDS):
                found.append((state.st_mtime, state.st_size, entry.path))
    return found


def _mark_used(path: str) -> None:
    with suppress(OSError):  # removed already, or another user's
        os.utime(path)
