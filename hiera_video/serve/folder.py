"""The folder of the server's uploads: private, locked while in use, removed afterwards.

A server that crashes leaves its folder behind. The next server finds it unlocked and removes it.
"""

import os
import shutil
import tempfile
import time
from contextlib import suppress
from typing import IO

from hiera_video.utils.errors import UserError

_PREFIX = "hiera_video_serve_"
_LOCK = "lock"
# A folder without a lock file is being created, or its server crashed while creating it. After this
# time it counts as left behind.
_YOUNG_SEC = 60.0


class UploadFolder:
    """A folder in the system's temporary folder (TMPDIR), created on enter and removed on exit.

    Entering raises a UserError if the folder cannot be created.
    """

    def __init__(self) -> None:
        self.path = ""
        self._lock: IO[str] | None = None

    def __enter__(self) -> "UploadFolder":
        remove_leftovers()
        try:
            try:
                self._make()
            except OSError:  # another server, just starting, removed it as a leftover
                self._make()
        except OSError as error:
            raise UserError(
                f"TMPDIR must be a folder that can be written to, got {tempfile.gettempdir()!r} "
                f"({error.strerror or error}). Try another one."
            ) from None
        return self

    def _make(self) -> None:
        self.path = tempfile.mkdtemp(prefix=_PREFIX)  # readable by this user only
        self._lock = _locked(os.path.join(self.path, _LOCK), "x")

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock:
            self._lock.close()

    def new_file(self) -> IO[bytes]:
        """Return a new file, open for writing, that is deleted when closed.

        Its name contains nothing that a client sends.
        """
        return tempfile.NamedTemporaryFile(dir=self.path, prefix="upload_", buffering=0)


def remove_leftovers() -> None:
    """Remove the folders that crashed servers of this user left behind."""
    parent = tempfile.gettempdir()
    with suppress(OSError):
        for entry in os.scandir(parent):
            with suppress(OSError):
                if not entry.name.startswith(_PREFIX) or not entry.is_dir(follow_symlinks=False):
                    continue
                owner = entry.stat(follow_symlinks=False).st_uid
                if not hasattr(os, "geteuid") or owner == os.geteuid():
                    _remove_if_left(entry.path)


def _remove_if_left(path: str) -> None:
    lock = os.path.join(path, _LOCK)
    if not os.path.exists(lock):
        if time.time() - os.stat(path).st_mtime > _YOUNG_SEC:
            shutil.rmtree(path, ignore_errors=True)
        return
    with _locked(lock, "r+"):  # held until the folder is removed
        shutil.rmtree(path, ignore_errors=True)


def _locked(path: str, mode: str) -> IO[str]:
    """Open a file and lock it; raises OSError if another process holds the lock."""
    file = open(path, mode)  # noqa: SIM115 - closing it releases the lock
    try:
        try:
            import fcntl  # not on Windows, where an open file cannot be removed anyway
        except ImportError:
            return file
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file
