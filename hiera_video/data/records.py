"""Records of a data set, one for each line of its list, and a table that processes share.

Legend: N videos.
A list of 240,000 records is about 60 MB of Python objects. Each process that reads such a list gets
its own copy, because reference counting writes to the objects. `RecordTable` stores the records in
four arrays that all processes map.
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
    """One video: its path, its class in [0, NUM_CLASSES) or NO_LABEL, its index in the list."""

    path: str
    label: int
    video_index: int


class RecordError(UserError):
    """A file of the data set is missing, or some of its lines are wrong."""


def check_split(split: str) -> None:
    """Raise ValueError unless `split` is "train", "val" or "test"."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")


def find_file(
    data_dir: str, names: Iterable[str], *, holds: str, way_out: Callable[[], str] = lambda: ""
) -> str:
    """Return the path of the first of `names` that exists in `data_dir`.

    `holds` describes the file's content for the error. `way_out` is called for advice if no file
    exists. Raises RecordError, which names the key, the missing file and its content, and gives the
    advice or says how to see a run without it.
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
    seen = "which lacks it" if is_dir(data_dir) else "which is not a folder"
    raise RecordError(
        f"DATA.PATH_TO_DATA_DIR must be the folder of {wanted} ({holds}), "
        f"got {data_dir!r}, {seen}. {way_out() or _DEMO}"
    )


def open_text(path: str) -> IO[str]:
    """Open a UTF-8 text file for reading; raises RecordError if it cannot be read."""
    try:
        return open_file(path)
    except OSError as error:
        raise RecordError(f"{path} must be readable, got: {error.strerror or error}.") from None


def resolve_path(path: str, *, folder: str) -> str:
    """Join a relative `path` to `folder`; return an absolute path or a URL unchanged."""
    if "://" in path or os.path.isabs(path):
        return path
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))


def raise_problems(problems: list[str]) -> None:
    """Raise one RecordError that lists the first ten problems and counts the rest."""
    if not problems:
        return
    shown = problems[:_SHOWN_PROBLEMS]
    rest = len(problems) - len(shown)
    if rest:
        shown.append(f"... and {rest} more like these ({len(problems)} in all).")
    raise RecordError("\n".join(shown))


_NUMBER = np.dtype(np.int64)


class RecordTable(Sequence[VideoRecord]):
    """Records in shared memory: about the bytes of their paths, for any number of processes."""

    def __init__(self, records: Iterable[VideoRecord]) -> None:
        paths, labels, indices = [], [], []
        for record in records:
            # File names need not be valid UTF-8.
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
        """The size of the shared memory."""
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
        # Send the file descriptor to the other process, not the content.
        return _attach, (reduction.DupFd(self._block.descriptor), len(self))


def _attach(descriptor: Any, num_records: int) -> RecordTable:
    table = RecordTable.__new__(RecordTable)
    table._map(descriptor.detach(), num_records)
    return table
