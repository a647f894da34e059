"""Shared memory behind a file descriptor without a name, so that no file is ever left behind.

On Linux the memory is anonymous (memfd). It does not count against /dev/shm, which containers often
limit to 64 MB, too little for training. If the system refuses memfd, and on other systems, the
memory is a temporary file that is unlinked at once.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hiera_video.utils.disk import anonymous_memory


class Place(NamedTuple):
    """The location of an array: the key of its block in the arena, and its length."""

    block: int
    num_bytes: int


def anonymous_file(num_bytes: int) -> int:
    """Create a file without a name that holds `num_bytes` zeros; return its descriptor."""
    descriptor = anonymous_memory("hiera_video")
    if descriptor is None:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, num_bytes)
    return descriptor


class Block:
    """Shared memory mapped into this process; the mapping lives as long as any array over it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.num_bytes = os.fstat(descriptor).st_size
        self._map = mmap.mmap(descriptor, self.num_bytes)
        # The map goes with the last array over it. The descriptor has to be closed explicitly.
        weakref.finalize(self, os.close, descriptor).atexit = False

    def buffer(self, num_bytes: int) -> memoryview:
        """Return a writable view of the first `num_bytes` bytes."""
        return memoryview(self._map)[:num_bytes]


class Arena:
    """The blocks of one process; a block is reused once its reader has released the content."""

    def __init__(self) -> None:
        self.blocks: dict[int, Block] = {}
        self.dropped: list[int] = []  # the reader maps these too and has to unmap them
        self._free: list[int] = []
        self._next_key = 0

    def take(self, num_bytes: int) -> int:
        """Return the key of an unused block of at least `num_bytes`, creating it if necessary."""
        fitting = [key for key in self._free if self.blocks[key].num_bytes >= num_bytes]
        if fitting:
            key = min(fitting, key=lambda key: self.blocks[key].num_bytes)
            self._free.remove(key)
            return key
        # Drop free blocks, all too small: sizes grow only while the first batches are read.
        for key in self._free:
            del self.blocks[key]
        self.dropped += self._free
        self._free.clear()
        key, self._next_key = self._next_key, self._next_key + 1
        self.blocks[key] = Block(anonymous_file(max(num_bytes, 1)))
        return key

    def give_back(self, key: int) -> None:
        """Mark a block as free for reuse."""
        if key in self.blocks:
            self._free.append(key)


class Scratch:
    """Allocates the arrays of one result, each in a block of an arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.places: list[Place] = []
        self._place_at: dict[int, Place] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Return an uninitialised array in shared memory."""
        dtype = np.dtype(dtype)
        num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        bytes_N = self._reserve(num_bytes)
        return bytes_N.view(dtype).reshape(shape)

    def store(self, content: memoryview) -> Place:
        """Return the place of `content` in shared memory; copy it there if it lies elsewhere."""
        bytes_N = np.frombuffer(content, np.uint8)
        place = self._place_at.get(_address(bytes_N))
        if place is not None and place.num_bytes >= len(bytes_N):
            return Place(place.block, len(bytes_N))
        self._reserve(len(bytes_N))[:] = bytes_N
        return self.places[-1]

    def _reserve(self, num_bytes: int) -> np.ndarray:
        place = Place(self._arena.take(num_bytes), num_bytes)
        bytes_N = np.frombuffer(self._arena.blocks[place.block].buffer(num_bytes), np.uint8)
        self.places.append(place)
        self._place_at[_address(bytes_N)] = place
        return bytes_N


def _address(bytes_N: np.ndarray) -> int:
    address: int = bytes_N.__array_interface__["data"][0]
    return address


def when_unused(buffer: memoryview, call: Callable[[], None]) -> np.ndarray:
    """Return the bytes as an array; call `call` once the array and all its views are gone."""
    bytes_N = np.frombuffer(buffer, np.uint8)
    weakref.finalize(bytes_N, call).atexit = False
    return bytes_N
