"""Result files of long work: tried before it starts, and written elsewhere if that fails later."""

import errno
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from hiera_video.utils import disk, io
from hiera_video.utils.errors import UserError, cause_of


def refuse_unwritable(path: str, *, key: str) -> None:
    """Try whether the file `path` can be written; nothing is left of the trial.

    Raises:
        UserError: it cannot; `key` is the option that named it.
    """
    try:
        if io.is_dir(path):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with suppress(FileNotFoundError):
            os.stat(path)  # which refuses a name that is too long
        descriptor, trial = tempfile.mkstemp(dir=os.path.dirname(disk.absolute(path)))
        os.close(descriptor)
        os.unlink(trial)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{key} must be a file that can be written, got {_short(path)} ({cause_of(error)}). "
            "Try another one."
        ) from None


def make_folder(path: str, *, key: str) -> None:
    """Make a folder that results go to, and try whether it can be written.

    Raises:
        UserError: it cannot; `key` is the option that named it.
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
    """Write a result as `disk.write_atomic` does, in another place if need be; return its path.

    The other places are a new name in the same folder, then one in the temporary folder. `warn`
    gets the line that names the file.

    Raises:
        OSError: none of these can be written.
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
