"""Write files that a run does not depend on: a failure to write one is only a warning."""

import os
from collections.abc import Callable
from contextlib import suppress

from hiera_video.utils import disk, io

Warn = Callable[[str], None]


def write_by_product(path: str, content: bytes, warn: Warn) -> bool:
    """Write a file atomically, creating its folder; return whether it was written.

    On failure, calls `warn` with one line.
    """
    try:
        io.make_dirs(os.path.dirname(path))
        disk.write_atomic(path, lambda file: file.write(content))
    except OSError as error:
        warn(_cannot_write(path, error))
        return False
    return True


class AppendedFile:
    """A file to which complete pieces are appended; pieces are lost while it cannot be written.

    The first lost piece causes a warning. Each later piece tries again. If the folder or the file
    has disappeared, it is created again.

    Args:
        path: Path of the file, which is opened at once.
        warn: Called with one line when writing fails for the first time since it last worked.
        header: Beginning of a new file.
        gap: Returns the bytes that replace a given number of lost pieces.

    Raises:
        OSError: The file cannot be opened. Only the constructor raises this.
    """

    def __init__(
        self,
        path: str,
        warn: Warn,
        *,
        header: bytes = b"",
        gap: Callable[[int], bytes] = lambda number: b"",
    ) -> None:
        self._path = path
        self._warn = warn
        self._header = header
        self._gap = gap
        self._num_lost = 0
        self._descriptor: int | None = None
        self._open()

    def append(self, piece: bytes) -> None:
        """Write a piece, or count it as lost."""
        try:
            if self._is_gone():
                self.close()
                io.make_dirs(os.path.dirname(self._path))
                self._open()
            self._write(self._gap(self._num_lost) + piece if self._num_lost else piece)
            self._num_lost = 0
        except OSError as error:
            self.close()  # after an outage, a file server may no longer know the open file
            self._num_lost += 1
            if self._num_lost == 1:
                self._warn(_cannot_write(self._path, error))

    def close(self) -> None:
        """Close the file; appending another piece would open it again."""
        if self._descriptor is not None:
            with suppress(OSError):  # a network file system may report here that it was full
                os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._descriptor = os.open(self._path, flags | getattr(os, "O_BINARY", 0), 0o666)

    def _is_gone(self) -> bool:
        """Return whether no file is open, or the open file no longer has its name."""
        if self._descriptor is None:
            return True
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True

    def _write(self, content: bytes) -> None:
        assert self._descriptor is not None
        size = os.fstat(self._descriptor).st_size
        left = memoryview(content if size else self._header + content)
        try:
            while left:  # an almost full disk may write only a part
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise


def _cannot_write(path: str, error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return (
        f"{path!r} cannot be written ({reason}). The run continues without it and tries again next "
        "time."
    )
