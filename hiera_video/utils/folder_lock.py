"""Lock a folder while a run writes to it, on one machine or on a shared disk.

The lock is the system's lock on a file in the folder; a record in the file names the holder.
Within one kernel, containers included, the system's lock is sufficient, because it disappears when
its process dies. A network file system may not support locks, may hide them from other machines, or
may keep the lock of a dead machine. The holder therefore also updates the file's modification time
every few seconds. A run that finds the record of another kernel waits to see whether that time
still changes.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum
from tempfile import TemporaryFile
from typing import IO
from uuid import uuid4

import simplejson

from hiera_video.utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no fcntl: only the record and its time are used
    fcntl = None  # type: ignore[assignment]

FILE = ".run.lock"
BEAT_SEC = 5.0
# Longer than a network file system delays the writes of another machine.
STALE_SEC = 60.0
_LOOK_SEC = 0.5
_BOOT = "/proc/sys/kernel/random/boot_id"


class Locks(Enum):
    """The state of the system's lock on a file."""

    TAKEN = "by this process"
    HELD = "by another one"
    UNKNOWN = "the file system has none"


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a lock; `boot` identifies the running kernel, "" if the system has no id."""

    host: str
    pid: int
    since: str
    boot: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} has run since {self.since}"


def this_process() -> Holder:
    """Return the record of this process, with a unique token."""
    boot = ""
    with suppress(OSError), open(_BOOT) as file:
        boot = file.read().strip()
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Holder(socket.gethostname(), os.getpid(), now, boot, uuid4().hex)


class FolderLock:
    """The lock on a folder, held until `release`.

    Args:
        folder: An existing folder that can be written.
        warn: Called with one line if the lock is unreliable or the caller must wait.

    Raises:
        UserError: Another run holds the lock, or may hold it.
        OSError: The file cannot be written.
    """

    def __init__(self, folder: str, warn: Callable[[str], None]) -> None:
        self._folder, self._path = folder, os.path.join(folder, FILE)
        self._own = this_process()
        self._file = self._take(warn)
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="folder lock", daemon=True)
        self._beats.start()
        if hasattr(os, "register_at_fork"):  # else a child would keep the lock after we exit
            os.register_at_fork(after_in_child=self._file.close)

    def check(self) -> None:
        """Raise a UserError if another run has taken over the lock as stale."""
        holder = _read(self._file) if _is_same(self._file, self._path) else _holder_at(self._path)
        if holder and holder.token != self._own.token:
            raise _refusal(self._folder, holder)

    def release(self) -> None:
        """Release the lock and remove its file."""
        self._ended.set()
        self._beats.join(BEAT_SEC)  # with a timeout: it may be waiting for a file server
        with suppress(OSError):
            if _is_same(self._file, self._path) and _read(self._file) == self._own:
                os.unlink(self._path)
        self._file.close()

    def _take(self, warn: Callable[[str], None]) -> IO[bytes]:
        first_beat, began_sec = 0, time.monotonic()
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            file = os.fdopen(descriptor, "r+b", buffering=0)
            try:
                waited_sec = time.monotonic() - began_sec
                if (locked := self._may_write(file, first_beat, waited_sec, warn)) is not None:
                    return self._write(file, locked, warn)
                first_beat = os.fstat(file.fileno()).st_mtime_ns
            except BaseException:
                file.close()
                raise
            file.close()
            time.sleep(_LOOK_SEC)

    def _may_write(
        self, file: IO[bytes], first_beat: int, waited_sec: float, warn: Callable[[str], None]
    ) -> bool | None:
        """Return whether the file is locked, if we may write it; None to look again.

        Raises a UserError if another run holds the lock: the system says so, or the file's time
        has changed since `first_beat`.
        """
        locks = _lock(file)
        if not _is_same(file, self._path):
            return None  # the holder has just removed the file
        holder = _read(file)
        is_here = holder is not None and holder.boot == self._own.boot != ""
        if locks is Locks.HELD and (holder is None or is_here):
            raise _refusal(self._folder, holder)
        if holder is None or (locks is Locks.TAKEN and is_here):
            return locks is Locks.TAKEN
        beat = os.fstat(file.fileno()).st_mtime_ns
        # The time may be in the future if a clock has been set back.
        age_sec = max(_age_sec(beat, self._folder), waited_sec)
        if first_beat not in (0, beat):
            raise _refusal(self._folder, holder)
        if age_sec < STALE_SEC:
            if not first_beat:
                warn(f"{holder}: waiting up to {STALE_SEC:.0f} s for a sign of life")
            return None
        if locks is Locks.HELD:
            raise _refusal(self._folder, holder, silent_sec=age_sec)
        warn(f"{holder} and gives no sign of life any more: its lock on OUTPUT_DIR is taken over")
        return locks is Locks.TAKEN

    def _write(self, file: IO[bytes], locked: bool, warn: Callable[[str], None]) -> IO[bytes]:
        file.seek(0)
        file.truncate()
        file.write(simplejson.dumps(asdict(self._own)).encode())
        file.flush()
        os.fsync(file.fileno())
        if not locked:
            warn(
                f"the file system of OUTPUT_DIR {self._folder!r} has no locks: another run that "
                "starts there at the same moment is only found when it saves"
            )
        return file

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SEC):
            with suppress(OSError):  # for example, a short outage of the file server
                if _is_same(self._file, self._path):
                    os.utime(self._path)


def _refusal(folder: str, holder: Holder | None, *, silent_sec: float = 0) -> UserError:
    who = str(holder) if holder else "another run has just begun"
    silent = (
        f" It has given no sign of life for {silent_sec:.0f} s: if it is gone, remove "
        f"{os.path.join(folder, FILE)}."
        if silent_sec
        else ""
    )
    return UserError(
        f"OUTPUT_DIR must be a folder that no other run trains in, got {folder!r}, where {who}. "
        f"Try another OUTPUT_DIR, or wait for its end.{silent}"
    )


def _lock(file: IO[bytes]) -> Locks:
    if fcntl is None:
        return Locks.UNKNOWN
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return Locks.HELD
    except OSError:  # the file system has no locks
        return Locks.UNKNOWN
    return Locks.TAKEN


def _is_same(file: IO[bytes], path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _read(file: IO[bytes]) -> Holder | None:
    """Return the record in the file; None if there is none or it is incomplete."""
    try:
        file.seek(0)
        return Holder(**simplejson.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None


def _holder_at(path: str) -> Holder | None:
    try:
        with open(path, "rb") as file:
            return _read(file)
    except OSError:
        return None


def _age_sec(time_ns: int, folder: str) -> float:
    """Return the seconds since a file's time was set, by the clock of the file system."""
    with TemporaryFile(dir=folder) as now:
        return (os.fstat(now.fileno()).st_mtime_ns - time_ns) / 1e9
