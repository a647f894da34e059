"""Files by path or URL, through iopath; and writes that leave either the old file or the new."""

import os
import tempfile
from collections.abc import Callable
from functools import cache
from typing import IO, Any

from iopath.common.file_io import HTTPURLHandler, PathManager


@cache
def path_manager() -> PathManager:
    """Return the project's PathManager: local paths, and http(s) URLs that are cached on disk."""
    manager = PathManager()
    manager.register_handler(HTTPURLHandler())
    return manager


def is_url(path: str) -> bool:
    """Say whether `path` is a URL, of a scheme that iopath knows or not."""
    return "://" in path


def open_file(path: str, mode: str = "r") -> IO[Any]:
    """Open a local path, or a URL to read (downloaded first); text is UTF-8 on every machine."""
    encoding = None if "b" in mode else "utf-8"
    return open(local_path(path) if "r" in mode else path, mode, encoding=encoding)


def exists(path: str) -> bool:
    """Say whether the local path exists; of a URL nothing is known before it is read."""
    return os.path.exists(path)


def is_file(path: str) -> bool:
    """Say whether the path is a local file."""
    return os.path.isfile(path)


def is_dir(path: str) -> bool:
    """Say whether the path is a local directory."""
    return os.path.isdir(path)


def make_dirs(path: str) -> None:
    """Make a directory and its parents; one that exists already is fine."""
    os.makedirs(path, exist_ok=True)


def local_path(path: str) -> str:
    """Return a path on this machine for `path`, downloading a URL into iopath's cache if need be.

    Raises:
        OSError: the download failed, in iopath's or urllib's words.
    """
    if not is_url(path):
        return path
    try:
        return path_manager().get_local_path(path)
    except AssertionError as error:  # a scheme that no handler is registered for
        raise OSError(f"cannot open {path}: {error}") from None


def write_atomic(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a temporary file beside `path`, flush it to the disk, then rename it there.

    A reader, or a machine that dies half-way, finds the old file or the new one, never a part of
    either. On any error the temporary file is removed and the error goes on.
    """
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _umask() -> int:
    # The only way to read the umask is to set it; mkstemp's 0600 would lock out a shared folder.
    mask = os.umask(0)
    os.umask(mask)
    return mask
