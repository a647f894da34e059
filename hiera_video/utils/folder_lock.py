"""A lock on a folder for as long as a run writes to it, on one machine or on a shared disk.

The system's lock on a file in the folder is what counts; a record in the file says who holds it.
Within one kernel, containers included, that lock alone tells: it goes when its process dies. On
network file systems a lock may be unknown, unknown to other machines, or outlive a dead one. So the
holder also sets the file's time every few seconds, and whoever finds the record of another kernel
waits until that time stands still for long enough.
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
except ImportError:  # Windows: the record and its time have to do
    fcntl = None  # type: ignore[assignment]

FILE = ".run.lock"
BEAT_SEC = 5.0
# Longer than a network file system delays what another machine writes.
STALE_SEC = 60.0
_LOOK_SEC = 0.5
_BOOT = "/proc/sys/kernel/random/boot_id"


class Locks(Enum):
    """What the system's lock on a file says."""

    TAKEN = "by this process"
    HELD = "by another one"
    UNKNOWN = "the file system has none"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock; `boot` tells kernels apart, "" where the system does not name its own."""

    host: str
    pid: int
    since: str
    boot: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} has run since {self.since}"


def this_process() -> Holder:
    """Return the record of this process, with a token that no other lock has."""
    boot = ""
    with suppress(OSError), open(_BOOT) as file:
        boot = file.read().strip()
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Holder(socket.gethostname(), os.getpid(), now, boot, uuid4().hex)


class FolderLock:
    """The lock on a folder, held until `release`.

    Args:
        folder: is there, and can be written to.
        warn: called with a line if the lock is uncertain, or if the caller has to wait.

    Raises:
        UserError: another run holds it, or may.
        OSError: the file cannot be written.
    """

    def __init__(self, folder: str, warn: Callable[[str], None]) -> None:
        self._folder, self._path = folder, os.path.join(folder, FILE)
        self._own = this_process()
        self._file = self._take(warn)
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="folder lock", daemon=True)
        self._beats.start()
        if hasattr(os, "register_at_fork"):  # a child would hold the lock beyond our death
            os.register_at_fork(after_in_child=self._file.close)

    def check(self) -> None:
        """Raise a UserError if another run has taken over the lock as stale."""
        holder = _read(self._file) if _is_same(self._file, self._path) else _holder_at(self._path)
        if holder and holder.token != self._own.token:
            raise _refusal(self._folder, holder)

    def release(self) -> None:
        """Give the folder up."""
        self._ended.set()
        self._beats.join(BEAT_SEC)  # it may wait for a file server that is away
        with suppress(OSError):
            if _is_same(self._file, self._path) and _read(self._file) == self._own:
                os.unlink(self._path)
        self._file.close()

    def _take(self, warn: Callable[[str], None]) -> IO[bytes]:
        first_beat, began_sec = 0, time.monotonic()
        while True:
            file = _open(self._path)
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
        """Return whether the file is locked and ours to write, None to look again.

        Raises a UserError where somebody holds it: the system says so, or a beat after the first.
        """
        locks = _lock(file)
        if not _is_same(file, self._path):
            return None  # its holder has just removed it
        holder = _read(file)
        is_here = holder is not None and holder.boot == self._own.boot != ""
        if locks is Locks.HELD and (holder is None or is_here):
            raise _refusal(self._folder, holder)
        if holder is None or (locks is Locks.TAKEN and is_here):
            return locks is Locks.TAKEN
        beat = os.fstat(file.fileno()).st_mtime_ns
        # The time may lie ahead, where a clock has been set back since.
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
            with suppress(OSError):  # a file server that is away for a moment, say
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


def _open(path: str) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)


def _lock(file: IO[bytes]) -> Locks:
    if fcntl is None:
        return Locks.UNKNOWN
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return Locks.HELD
    except OSError:  # of the kinds that a file system without locks has
        return Locks.UNKNOWN
    return Locks.TAKEN


def _is_same(file: IO[bytes], path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _read(file: IO[bytes]) -> Holder | None:
    """Return the record in the file, None where there is none, or only a part of one."""
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
    """Return how long ago a file's time was set, by the clock of the file system."""
    with TemporaryFile(dir=folder) as now:
        return (os.fstat(now.fileno()).st_mtime_ns - time_ns) / 1e9
