"""Write local files so that a reader finds either the old file or the new, never a part."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO


def absolute(path: str) -> str:
    """Return `path` from the root on, each `..` in it left to the system.

    `os.path.abspath` takes `link/..` out, which is another folder if `link` is a symbolic link.
    """
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


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
