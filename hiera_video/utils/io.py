"""Files by path or URL, through iopath.

A `~` at the beginning of a path is the home folder, where no shell has made it so.
"""

import os
from functools import cache
from typing import IO, Any

from iopath.common.file_io import PathManager

from hiera_video.utils.cache import UrlHandler, cached_path, forget_copy


@cache
def path_manager() -> PathManager:
    """Return the project's PathManager: local paths, and http(s) URLs that are cached on disk."""
    manager = PathManager()
    manager.register_handler(UrlHandler())
    return manager


def is_url(path: str) -> bool:
    """Say whether `path` is a URL, of a scheme that iopath knows or not."""
    return "://" in path


def open_file(path: str, mode: str = "r") -> IO[Any]:
    """Open a local path, or a URL to read (downloaded first); text is UTF-8 on every machine.

    A byte order mark at the beginning, as editors on Windows write it, is not part of the text.
    """
    if "r" not in mode:
        return open(os.path.expanduser(path), mode, encoding=None if "b" in mode else "utf-8")
    return open(local_path(path), mode, encoding=None if "b" in mode else "utf-8-sig")


def exists(path: str) -> bool:
    """Say whether the local path exists; of a URL nothing is known before it is read."""
    return os.path.exists(os.path.expanduser(path))


def is_file(path: str) -> bool:
    """Say whether the path is a local file."""
    return os.path.isfile(os.path.expanduser(path))


def is_dir(path: str) -> bool:
    """Say whether the path is a local directory."""
    return os.path.isdir(os.path.expanduser(path))


def make_dirs(path: str) -> None:
    """Make a directory and its parents; one that exists already is fine."""
    os.makedirs(os.path.expanduser(path), exist_ok=True)


def local_path(path: str) -> str:
    """Return a path on this machine for `path`, downloading a URL into iopath's cache if need be.

    A process checks a copy for a new version when it first uses it, see `utils/cache.py`. The copy
    of a signed URL is deleted together with the returned string, so keep a reference to it.

    Raises:
        OSError: the download failed, in iopath's or urllib's words.
    """
    if not is_url(path):
        return os.path.expanduser(path)
    try:
        here: str = path_manager().get_local_path(path)
    except AssertionError as error:
        raise OSError(f"cannot open {path}: {error}") from None
    if here == path:  # iopath takes a scheme that it does not know for a local path
        raise OSError(f"cannot open {path}: its scheme is neither http nor https")
    return here


def forget_download(url: str) -> None:
    """Remove what was downloaded from `url`, so that the next use fetches it again."""
    forget_copy(cached_path(url))
