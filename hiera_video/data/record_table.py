"""The videos of a split in one piece of memory, which all worker processes share.

A list of 240,000 records is about 60 MB of Python objects, and each process that walks over it gets
a copy, because counting references writes to it. Here they are four arrays, mapped by everyone.

Legend: N videos.
"""

from collections.abc import Iterable, Sequence
from multiprocessing import reduction
from typing import Any, overload

import numpy as np

from hiera_video.data.records import VideoRecord
from hiera_video.data.workers.memory import Block, anonymous_file

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
