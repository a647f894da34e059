"""Write local files so that a reader finds either the old file or the new, never a partial one."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO


def absolute(path: str) -> str:
    """Return an absolute `path` without resolving `..` in it.

    `os.path.abspath` removes `link/..`, which is another folder if `link` is a symbolic link.
    """
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def write_atomic(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a temporary file beside `path`, flush it to the disk, then rename it.

    A reader finds the old file or the new one, never a partial one, even after a crash. On any
    error the temporary file is removed and the error is raised.
    """
    path = os.path.expanduser(path)
    folder, name = os.path.split(absolute(path))
    # Use only part of the name: the whole name with prefix and suffix may be too long.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name[:50]}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            with _unless_unsupported():
                os.fsync(file.fileno())
        with suppress(OSError):  # CIFS and some FUSE file systems refuse it and do not need it
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


@contextmanager
def _unless_unsupported() -> Iterator[None]:
    """Ignore errors of calls that the file system does not support; raise all others."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def anonymous_memory(name: str) -> int | None:
    """Return the descriptor of a new anonymous file in memory; None if the system has none.

    A container's system call filter or an old kernel may refuse the call even if Python has it.
    """
    if not hasattr(os, "memfd_create"):
        return None
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL):
            return None
        raise  # for example, no memory or too many open files


def flush_folder(folder: str) -> None:
    """Flush new names in a folder to the disk, if the system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    # The only way to read the umask is to set it. mkstemp's 0600 would lock out other users.
    mask = os.umask(0)
    os.umask(mask)
    return mask
