"""Files by path or URL, through iopath; and writes that leave either the old file or the new.

A `~` at the beginning of a path is the home folder, where no shell has made it so.
"""

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, Any

from iopath.common.file_io import PathManager, get_cache_dir


@cache
def path_manager() -> PathManager:
    """Return the project's PathManager: local paths, and http(s) URLs that are cached on disk."""
    from hiera_video.utils.cache import UrlHandler  # which builds on this file

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


def absolute(path: str) -> str:
    """Return `path` from the root on, each `..` in it left to the system.

    `os.path.abspath` takes `link/..` out, which is another folder if `link` is a symbolic link.
    """
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


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


def cached_path(url: str, cache_dir: str | None = None) -> str:
    """Return where the download of `url` stands, or will: in $FVCORE_CACHE or iopath's default."""
    key = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    name = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
    # With its ending, which says what it is, and without what no file's name may hold.
    name = re.sub(r"[^a-zA-Z0-9._%+-]", "_", name)[-100:]
    return os.path.join(get_cache_dir(cache_dir), f"{key}-{name}")


def forget_download(url: str) -> None:
    """Remove what was downloaded from `url`, so that the next use fetches it again."""
    forget_copy(cached_path(url))


def forget_copy(copy: str) -> None:
    """Remove a copy of a URL, and what is known of its version; harmless if there is none."""
    for path in (copy, origin_path(copy)):
        with suppress(OSError):  # not there, or another's
            os.unlink(path)


def origin_path(copy: str) -> str:
    """Return the file that holds what the server said of the version of a copy."""
    return f"{copy}.origin"


def write_atomic(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a temporary file beside `path`, flush it to the disk, then rename it there.

    A reader, or a machine that dies half-way, finds the old file or the new one, never a part of
    either. On any error the temporary file is removed and the error goes on.
    """
    path = os.path.expanduser(path)
    folder, name = os.path.split(absolute(path))
    # A part of the name: with the rest of its own, a whole one may be too long.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name[:50]}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            with _unless_unsupported():
                os.fsync(file.fileno())
        with suppress(OSError):  # CIFS and some FUSE file systems refuse it, and need it not
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


@contextmanager
def _unless_unsupported() -> Iterator[None]:
    """Ignore calls that the file system does not support; raise errors of the disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def anonymous_memory(name: str) -> int | None:
    """Return the descriptor of a new nameless file in memory; None where the system has none.

    A system call filter, as containers have, or an old kernel may refuse what Python offers.
    """
    if not hasattr(os, "memfd_create"):
        return None
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL):
            return None
        raise  # no memory, say, or too many open files


def flush_folder(folder: str) -> None:
    """Bring new names in a folder to the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    # The only way to read the umask is to set it; mkstemp's 0600 would lock out a shared folder.
    mask = os.umask(0)
    os.umask(mask)
    return mask
