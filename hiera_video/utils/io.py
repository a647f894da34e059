"""Open files by path or URL, through iopath.

A leading `~` in a path is replaced by the home folder, in case no shell has done so.
"""

import os
from functools import cache
from typing import IO, Any

from iopath.common.file_io import PathManager

from hiera_video.utils.cache import UrlHandler, cached_path, forget_copy


@cache
def path_manager() -> PathManager:
    """Return the project's PathManager for local paths and http(s) URLs, cached on disk."""
    manager = PathManager()
    manager.register_handler(UrlHandler())
    return manager


def is_url(path: str) -> bool:
    """Return whether `path` is a URL, even if iopath does not know its scheme."""
    return "://" in path


def open_file(path: str, mode: str = "r") -> IO[Any]:
    """Open a local path, or download a URL and open it for reading. Text is always UTF-8.

    A byte order mark at the beginning, which editors on Windows write, is skipped.
    """
    if "r" not in mode:
        return open(os.path.expanduser(path), mode, encoding=None if "b" in mode else "utf-8")
    return open(local_path(path), mode, encoding=None if "b" in mode else "utf-8-sig")


def exists(path: str) -> bool:
    """Return whether a local path exists. A URL cannot be checked before it is read."""
    return os.path.exists(os.path.expanduser(path))


def is_file(path: str) -> bool:
    """Return whether the path is a local file."""
    return os.path.isfile(os.path.expanduser(path))


def is_dir(path: str) -> bool:
    """Return whether the path is a local directory."""
    return os.path.isdir(os.path.expanduser(path))


def make_dirs(path: str) -> None:
    """Make a directory and its parents, if they do not exist."""
    os.makedirs(os.path.expanduser(path), exist_ok=True)


def local_path(path: str) -> str:
    """Return a local path for `path`, downloading a URL into iopath's cache if necessary.

    A process checks for a new version when it first uses a copy, see `utils/cache.py`. The copy of
    a signed URL is deleted together with the returned string, so keep a reference to it.

    Raises:
        OSError: The download failed; the text is iopath's or urllib's.
    """
    if not is_url(path):
        return os.path.expanduser(path)
    try:
        here: str = path_manager().get_local_path(path)
    except AssertionError as error:
        raise OSError(f"cannot open {path}: {error}") from None
    if here == path:  # iopath takes an unknown scheme for a local path
        raise OSError(f"cannot open {path}: its scheme is neither http nor https")
    return here


def forget_download(url: str) -> None:
    """Remove the downloaded copy of `url`, so that the next use fetches it again."""
    forget_copy(cached_path(url))
