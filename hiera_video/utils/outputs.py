"""Check before long work that its result can be written; if that fails later, write elsewhere."""

import errno
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from hiera_video.utils import disk, io
from hiera_video.utils.errors import UserError, cause_of


def refuse_unwritable(path: str, *, key: str) -> None:
    """Raise a UserError unless the file `path` can be written; leaves no file behind.

    `key` is the option that names the file, for the message.
    """
    try:
        if io.is_dir(path):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with suppress(FileNotFoundError):
            os.stat(path)  # raises OSError for a name that is too long
        descriptor, trial = tempfile.mkstemp(dir=os.path.dirname(disk.absolute(path)))
        os.close(descriptor)
        os.unlink(trial)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{key} must be a file that can be written, got {_short(path)} ({cause_of(error)}). "
            "Try another one."
        ) from None


def make_folder(path: str, *, key: str) -> None:
    """Make a folder for results. Raises a UserError if it cannot be written.

    `key` is the option that names the folder, for the message.
    """
    try:
        io.make_dirs(path)
        descriptor, trial = tempfile.mkstemp(dir=path)
        os.close(descriptor)
        os.unlink(trial)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{key} must be a folder that can be written, got {_short(path)} ({cause_of(error)}). "
            "Try another one."
        ) from None


def write_or_elsewhere(
    path: str, write: Callable[[IO[bytes]], Any], *, warn: Callable[[str], None]
) -> str:
    """Write a result atomically to `path`, or elsewhere if that fails; return the path written.

    Tries `path`, then a new name in the same folder, then a new name in the temporary folder.
    Calls `warn` with one line that names the file if it is not `path`.

    Raises:
        OSError: None of these can be written.
    """
    stem, ending = os.path.splitext(os.path.basename(path))
    try:
        io.make_dirs(os.path.dirname(disk.absolute(path)))
        disk.write_atomic(path, write)
        return path
    except (OSError, ValueError) as error:
        first = error
    for folder in (os.path.dirname(disk.absolute(path)), None):
        with suppress(OSError, ValueError):
            start = "".join(filter(str.isprintable, stem))[:40]
            descriptor, other = tempfile.mkstemp(ending[:10], f"{start}-", folder)
            os.close(descriptor)
            try:
                disk.write_atomic(other, write)
            except BaseException:
                os.unlink(other)
                raise
            warn(f"{_short(path)} cannot be written ({cause_of(first)}). Written: {other!r}.")
            return other
    raise OSError(f"{_short(path)}: {cause_of(first)}")


def _short(path: str) -> str:
    shown = repr(path)
    return shown if len(shown) <= 200 else f"{shown[:100]} ... {shown[-80:]}"
