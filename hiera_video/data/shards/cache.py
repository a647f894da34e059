"""A cache on this machine for remote shards; the least recently used copies make room for new ones.

HIERA_VIDEO_SHARD_CACHE is the folder (default: `shards` in iopath's cache), and
HIERA_VIDEO_SHARD_CACHE_GIB its size limit (50). Both describe the machine, not the run, so they are
not config keys. Any number of processes may share the folder.
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

# Another process may remove a shard between its download and its use. This happens repeatedly only
# if the cache holds fewer shards than there are processes.
_TRIES = 5
_WEB = ("http", "https")
SCHEMES = (*_WEB, "s3", "gs", "az", "hf", "file")


def cache_folder() -> str:
    """Return the folder of the cache; it need not exist yet."""
    return os.environ.get(FOLDER_VARIABLE) or os.path.join(get_cache_dir(), "shards")


def cache_limit_bytes() -> int:
    """Return the size limit of the cache; raises UserError if the limit is not a number."""
    return limit_bytes(SIZE_VARIABLE, DEFAULT_GIB)


def open_shard(shard: str) -> IO[bytes]:
    """Open a shard for reading: a tar file, or the local copy of a URL.

    Once open, the file stays readable even if its copy is removed from the cache. Raises OSError.
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
    """Fetch a remote shard if its copy is missing or out of date; return the path of the copy.

    `utils/fetch.py` reads http and https. fsspec reads other schemes (s3://, gs:// and so on), each
    of which needs its own package. Raises OSError with the message of the reader.
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
    """Remove the copy of a shard that does not match its index, unless it was checked recently.

    A shard that is damaged at its source would otherwise be fetched again for each of its videos.
    """
    copy = cached_path(url, cache_folder())
    if not was_checked_lately(copy):
        forget_copy(copy)


def refusal(url: str) -> str:
    """Return the reason why a shard may not be fetched from `url`, or "".

    fsspec follows any registered scheme and chains of schemes. Some of these can read any file, or
    run code that an index supplies.
    """
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        return f"a shard's URL must begin with {', '.join(SCHEMES)}, got {scheme[:40]!r}"
    if scheme not in _WEB and "::" in url:
        return "a shard's URL must not be a chain, got one with '::'"
    return ""


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case."""
    return url.partition("://")[0].lower()


def _fetch_by_fsspec(url: str, file: IO[bytes], known: Mapping[str, str]) -> dict[str, str] | None:
    """Fetch `url` into `file` like `fetch.fetch`, with fsspec's `ukey` as the version."""
    from fsspec.core import url_to_fs

    try:
        storage, path = url_to_fs(url)
        version = {"ukey": str(storage.ukey(path))}
        if version == known:
            return None
        with storage.open(path, "rb") as source:
            copy_paced(source.read, file, total=None, name=os.path.basename(path))
    except FileNotFoundError:
        raise RefusedError("no such file") from None  # the source lacks it, not the cache
    except OSError:
        raise
    except Exception as error:  # from a storage library; fsspec names a missing package
        raise OSError(f"{type(error).__name__}: {error}") from None
    return version
