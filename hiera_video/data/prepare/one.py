"""One job in a worker process: encode beside the target, verify, and move into place."""

import errno
import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hiera_video.data.decoders import DecodeError
from hiera_video.data.prepare.encode import Encoding, OutputError, Phase, encode
from hiera_video.data.prepare.journal import source_state
from hiera_video.data.prepare.verify import VerifyError, compare_pictures, verify
from hiera_video.data.workers.process import Job

PARTIAL = re.compile(r"\.[0-9a-f]{16}\.part")

# Faults of the disk, not of one file. To continue would report good videos as bad.
_DISK_TROUBLE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)
)


@dataclass(frozen=True, slots=True)
class Task:
    """A source file and the path of its prepared video."""

    source: str
    target: str
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a task: facts for the journal, or the reason of the failure.

    `disk_error` is the errno of a fault of the disk, with which every other task would fail too.
    """

    facts: dict[str, Any] | None = None
    reason: str = ""
    disk_error: int | None = None


def prepare_one(task: Task, job: Job) -> Outcome:
    """Prepare one video; the outcome holds any error. The target is either complete or absent.

    Each step with a time limit starts with `job.begin`; `describe_step` returns its name.
    """

    def begin(phase: Phase, frame: int) -> None:
        job.begin(frame * len(Phase) + phase)

    partial = partial_path(task.target)
    try:
        before = source_state(task.source)
        os.makedirs(os.path.dirname(task.target), exist_ok=True)
        encoded = encode(task.source, partial, task.encoding, begin)
        verify(partial, encoded, begin)
        compare_pictures(partial, task.source, encoded, begin)
        begin(Phase.MOVING, 0)
        _flush(partial)
        os.replace(partial, task.target)
    except DecodeError as error:
        # The report shows the path beside the reason, so leave it out here.
        return _failed(partial, error.cause.rstrip("."))
    except VerifyError as error:
        return _failed(partial, f"was not written as encoded: {error}")
    except OutputError as error:
        return _failed(partial, f"cannot be written: {error.words}", code=error.code)
    except OSError as error:
        code = None if error.filename == task.source else error.errno
        return _failed(partial, f"{error.strerror or error} ({error.filename})", code=code)
    except MemoryError:
        return _failed(partial, "takes more memory than there is")
    except Exception as error:  # one file must not end a run over 240,000 files
        return _failed(partial, f"{type(error).__name__}: {error}")
    return Outcome(
        {
            "source": before,
            "output_bytes": os.path.getsize(task.target),
            "frames": len(encoded.times_N),
            "damaged_frames": encoded.num_damaged,
            "width": encoded.width,
            "height": encoded.height,
        }
    )


def describe_step(step: int) -> str:
    """Return in words what `prepare_one` was doing at a step."""
    frame, phase = divmod(max(step, 0), len(Phase))
    return f"{Phase(phase).name.lower()} the file, frame {frame}"


def partial_path(target: str) -> str:
    """Return the hidden, short, repeatable name that a target has until it is complete."""
    folder, name = os.path.split(target)
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return os.path.join(folder, f".{digest}.part")


def remove_partials(folder: str) -> None:
    """Remove the partial files that an interrupted run left below `folder`."""
    for path, _folders, files in os.walk(folder):
        for name in files:
            if PARTIAL.fullmatch(name):
                with suppress(OSError):
                    os.unlink(os.path.join(path, name))


def _failed(partial: str, reason: str, *, code: int | None = None) -> Outcome:
    with suppress(OSError):
        os.unlink(partial)
    return Outcome(reason=reason, disk_error=code if code in _DISK_TROUBLE else None)


def _flush(path: str) -> None:
    # Flush before the rename, so that a crash cannot leave the name without the contents.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
