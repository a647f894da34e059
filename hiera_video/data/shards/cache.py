"""Shards that lie elsewhere, on this machine: fetched once, the least used removed for new ones.

HIERA_VIDEO_SHARD_CACHE is the folder (default: `shards` in iopath's cache), and
HIERA_VIDEO_SHARD_CACHE_GIB what it may hold (50). Both are the machine's business, not a run's, and
so no config keys. Any number of processes may share the folder.
"""

import os
from collections.abc import Mapping
from typing import IO

from iopath.common.file_io import get_cache_dir

from hiera_video.utils.cache import (
    cached_path,
    copy_of,
    forget_copy,
    is_signed,
    limit_bytes,
    was_checked_lately,
)
from hiera_video.utils.fetch import RefusedError, copy_paced, fetch
from hiera_video.utils.io import is_url

FOLDER_VARIABLE = "HIERA_VIDEO_SHARD_CACHE"
SIZE_VARIABLE = "HIERA_VIDEO_SHARD_CACHE_GIB"
DEFAULT_GIB = 50.0

# Another process may remove a shard between its download and its use; not time after time, unless
# the cache holds fewer shards than there are processes.
_TRIES = 5
_WEB = ("http", "https")
SCHEMES = (*_WEB, "s3", "gs", "az", "hf", "file")


def cache_folder() -> str:
    """Return the folder of the cache; it need not be there yet."""
    return os.environ.get(FOLDER_VARIABLE) or os.path.join(get_cache_dir(), "shards")


def cache_limit_bytes() -> int:
    """Return how much the cache may hold; raises UserError for a limit that is no number."""
    return limit_bytes(SIZE_VARIABLE, DEFAULT_GIB)


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
        return file
    raise OSError(f"{SIZE_VARIABLE} is too small for the processes that share the cache")


def cached_shard(url: str) -> str:
    """Return the path of the copy of a remote shard, fetching it if it is not there or not current.

    http and https are read by `utils/fetch.py`, other schemes through fsspec (s3://, gs:// and so
    on, each of which needs its own package). Raises OSError with their message.
    """
    if why := refusal(url):
        raise OSError(why)
    return copy_of(
        url,
        cache_folder(),
        fetch=fetch if scheme_of(url) in _WEB else _fetch_by_fsspec,
        limit=cache_limit_bytes(),
        asks_again=not is_signed(url),  # a signature expires during a run
    )


def drop_damaged(url: str) -> None:
    """Remove the copy of a shard that is not what its index says, unless it was just checked.

    A shard that is damaged at its source would otherwise be fetched for each of its videos.
    """
    copy = cached_path(url, cache_folder())
    if not was_checked_lately(copy):
        forget_copy(copy)


def refusal(url: str) -> str:
    """Return why a shard may not be fetched from `url`; "" if it may.

    fsspec follows any registered scheme, and chains of schemes. Some of these read any file, or run
    code that comes with an index.
    """
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        return f"a shard's URL must begin with {', '.join(SCHEMES)}, got {scheme[:40]!r}"
    if scheme not in _WEB and "::" in url:
        return "a shard's URL must be no chain, got one with '::'"
    return ""


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case."""
    return url.partition("://")[0].lower()


def _fetch_by_fsspec(url: str, file: IO[bytes], known: Mapping[str, str]) -> dict[str, str] | None:
    """Do as `fetch.fetch` does, with fsspec's `ukey` for the version."""
    from fsspec.core import url_to_fs

    try:
        storage, path = url_to_fs(url)
        version = {"ukey": str(storage.ukey(path))}
        if version == known:
            return None
        with storage.open(path, "rb") as source:
            copy_paced(source.read, file, total=None, name=os.path.basename(path))
    except FileNotFoundError:
        raise RefusedError("no such file") from None  # there, and not in the cache
    except OSError:
        raise
    except Exception as error:  # of a storage's own library; fsspec names the package that lacks
        raise OSError(f"{type(error).__name__}: {error}") from None
    return version
