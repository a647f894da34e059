"""Records of a data set: one for each line of a list, and a table of them that processes share.

Legend: N videos.
A list of 240,000 records is about 60 MB of Python objects. Each process that reads it gets a copy,
because counting references writes to it. `RecordTable` keeps four arrays that all processes map.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import reduction
from typing import IO, Any, overload

import numpy as np

from hiera_video.data.workers.memory import Block, anonymous_file
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


_NUMBER = np.dtype(np.int64)


class RecordTable(Sequence[VideoRecord]):
    """Records that cost about their paths' bytes, however many processes hold them."""

    def __init__(self, records: Iterable[VideoRecord]) -> None:
        paths, labels, indices = [], [], []
        for record in records:
            # As file names come: not all of them are valid text.
            paths.append(record.path.encode("utf-8", "surrogateescape"))
            labels.append(record.label)
            indices.append(record.video_index)
        ends_N = np.cumsum([len(path) for path in paths], dtype=_NUMBER)
        numbers_3N = np.array([ends_N, labels, indices], dtype=_NUMBER)
        text = b"".join(paths)
        self._map(anonymous_file(max(numbers_3N.nbytes + len(text), 1)), len(paths))
        self._numbers_3N[:] = numbers_3N
        self._text[:] = np.frombuffer(text, np.uint8)

    def _map(self, descriptor: int, num_records: int) -> None:
        self._block = Block(descriptor)
        num_bytes = 3 * num_records * _NUMBER.itemsize
        content = np.frombuffer(self._block.buffer(self._block.num_bytes), np.uint8)
        self._numbers_3N = content[:num_bytes].view(_NUMBER).reshape(3, num_records)
        self._text = content[num_bytes:] if num_records else content[:0]

    @property
    def num_bytes(self) -> int:
        """Size of the memory that is shared."""
        return self._block.num_bytes

    def __len__(self) -> int:
        return self._numbers_3N.shape[1]

    @overload
    def __getitem__(self, index: int) -> VideoRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[VideoRecord]: ...

    def __getitem__(self, index: int | slice) -> VideoRecord | list[VideoRecord]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        place = index % len(self)
        end, label, video_index = self._numbers_3N[:, place].tolist()
        start = int(self._numbers_3N[0, place - 1]) if place else 0
        path = self._text[start:end].tobytes().decode("utf-8", "surrogateescape")
        return VideoRecord(path, label, video_index)

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process goes the descriptor, not the content.
        return _attach, (reduction.DupFd(self._block.descriptor), len(self))


def _attach(descriptor: Any, num_records: int) -> RecordTable:
    table = RecordTable.__new__(RecordTable)
    table._map(descriptor.detach(), num_records)
    return table
