"""What one line of a data set says, and the reading that its formats share."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO

from hiera_video.utils.errors import UserError
from hiera_video.utils.io import is_dir, is_file, open_file

SPLITS = ("train", "val", "test")
NO_LABEL = -1

_SHOWN_PROBLEMS = 10
_DEMO = "To see a run without data of your own, try `make demo`."


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video: its file, its class in [0, NUM_CLASSES) or NO_LABEL, its place in the list."""

    path: str
    label: int
    video_index: int


class RecordError(UserError):
    """A data set's file that is missing, or lines of it that cannot be right."""


def check_split(split: str) -> None:
    """Raise ValueError unless `split` is "train", "val" or "test"."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")


def find_file(
    data_dir: str, names: Iterable[str], *, holds: str, way_out: Callable[[], str] = lambda: ""
) -> str:
    """Return the path of the first of `names` that `data_dir` has.

    `holds` says, for the error, what such a file holds; `way_out` is asked what to try if
    `data_dir` lacks them. Raises RecordError that names the key, the file that is missing, what it
    must hold, and how to see a run without it.
    """
    names = list(names)
    wanted = " or ".join(names)
    if not data_dir:
        raise RecordError(
            f"DATA.PATH_TO_DATA_DIR must be the folder of {wanted} ({holds}), got ''. {_DEMO}"
        )
    for name in names:
        path = os.path.join(data_dir, name)
        if is_file(path):
            return path
        if is_dir(path):
            raise RecordError(f"{path} must be a file ({holds}), got a directory. {_DEMO}")
    seen = "which lacks it" if is_dir(data_dir) else "which is no folder"
    raise RecordError(
        f"DATA.PATH_TO_DATA_DIR must be the folder of {wanted} ({holds}), "
        f"got {data_dir!r}, {seen}. {way_out() or _DEMO}"
    )


def open_text(path: str) -> IO[str]:
    """Open a UTF-8 text file to read; raises RecordError where it may not be read."""
    try:
        return open_file(path)
    except OSError as error:
        raise RecordError(f"{path} must be readable, got: {error.strerror or error}.") from None


def resolve_path(path: str, *, folder: str) -> str:
    """Return `path` as it is if absolute or a URL, otherwise inside `folder`."""
    if "://" in path or os.path.isabs(path):
        return path
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))


def raise_problems(problems: list[str]) -> None:
    """Raise one RecordError for all problems of a file: the first ten and their number."""
    if not problems:
        return
    shown = problems[:_SHOWN_PROBLEMS]
    rest = len(problems) - len(shown)
    if rest:
        shown.append(f"... and {rest} more like these ({len(problems)} in all).")
    raise RecordError("\n".join(shown))
