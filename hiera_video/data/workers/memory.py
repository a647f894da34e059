"""Memory that processes share by an open file instead of a name: nothing is left behind, ever.

On Linux it is anonymous (memfd): it does not count against /dev/shm, whose 64 MB in a container
have stopped many a training run. Where the system refuses that, and elsewhere, it is a temporary
file that is unlinked at once.
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
    """Where an array lies: the key of its block in the arena it came from, and its length."""

    block: int
    num_bytes: int


def anonymous_file(num_bytes: int) -> int:
    """Return the descriptor of a new nameless file of `num_bytes` zeros, to be mapped."""
    descriptor = anonymous_memory("hiera_video")
    if descriptor is None:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, num_bytes)
    return descriptor


class Block:
    """A shared piece of memory, mapped into this process; it lives as long as anything in it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.num_bytes = os.fstat(descriptor).st_size
        self._map = mmap.mmap(descriptor, self.num_bytes)
        # When the last array over the map is gone, so is the map; the descriptor is ours to close.
        weakref.finalize(self, os.close, descriptor).atexit = False

    def buffer(self, num_bytes: int) -> memoryview:
        """Return a writable view of its first bytes."""
        return memoryview(self._map)[:num_bytes]


class Arena:
    """Blocks of one process, used again once the reader of their content has let go of it."""

    def __init__(self) -> None:
        self.blocks: dict[int, Block] = {}
        self.dropped: list[int] = []  # for the reader, who maps them too
        self._free: list[int] = []
        self._next_key = 0

    def take(self, num_bytes: int) -> int:
        """Return the key of a block of at least `num_bytes` that nobody reads."""
        fitting = [key for key in self._free if self.blocks[key].num_bytes >= num_bytes]
        if fitting:
            key = min(fitting, key=lambda key: self.blocks[key].num_bytes)
            self._free.remove(key)
            return key
        # Free ones that are too small will stay so: sizes grow while the first batches are made.
        for key in self._free:
            del self.blocks[key]
        self.dropped += self._free
        self._free.clear()
        key, self._next_key = self._next_key, self._next_key + 1
        self.blocks[key] = Block(anonymous_file(max(num_bytes, 1)))
        return key

    def give_back(self, key: int) -> None:
        """Say that a block may be used again."""
        if key in self.blocks:
            self._free.append(key)


class Scratch:
    """The arrays of one result, each in a block of an arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.places: list[Place] = []
        self._place_at: dict[int, Place] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Return an array of undefined content in shared memory."""
        dtype = np.dtype(dtype)
        num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        bytes_N = self._reserve(num_bytes)
        return bytes_N.view(dtype).reshape(shape)

    def store(self, content: memoryview) -> Place:
        """Return where bytes lie in shared memory; they are copied there if they do not yet."""
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
    """Return the bytes as an array; `call` is called once neither it nor a view of it is left."""
    bytes_N = np.frombuffer(buffer, np.uint8)
    weakref.finalize(bytes_N, call).atexit = False
    return bytes_N
