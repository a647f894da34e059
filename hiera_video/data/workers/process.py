"""One process of a pool, from both sides: what it runs, and how it is told and heard.

Its messages are small; arrays go through shared memory, whose descriptors cross once. A board of
three numbers in shared memory says which task and step it is at: it can be read when nothing else
of the process answers any more.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch

from hiera_video.data.workers.memory import (
    Arena,
    Block,
    Place,
    Scratch,
    anonymous_file,
    when_unused,
)
from hiera_video.utils.errors import UserError
from hiera_video.utils.sockets import make_room_for_sockets

# Smaller buffers travel in the message itself.
_SHARED_FROM_BYTES = 4096
_IDLE = -1
_NOT_BEGUN = -2  # has a task and is at none of its steps yet
# Seconds to wait for a descriptor, which follows its message at once.
_HANDLE_POLLS = 30


class Job:
    """What a task's function is given beside the task: it says where it is, and gets memory."""

    def __init__(self, board: np.ndarray | None = None, scratch: Scratch | None = None) -> None:
        self._board = board
        self._scratch = scratch

    def begin(self, step: int) -> None:
        """Say that step number `step` (0 or more) begins now, and with it its deadline.

        -1 is what is at no deadline, as a download may be that has one of its own.
        """
        if self._board is not None:
            self._board[1] = step
            self._board[2] += 1

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Return an array of undefined content that can be returned without being copied."""
        return (
            np.empty(shape, dtype) if self._scratch is None else self._scratch.empty(shape, dtype)
        )


@dataclass(slots=True)
class Finished:
    """A result; not `wanted` if its task was forgotten meanwhile."""

    task_id: int
    value: Any
    wanted: bool = True


@dataclass(slots=True)
class Failed:
    """An exception of the function, which is a bug unless it is a `user_error`."""

    traceback: str
    user_error: UserError | None = None


@dataclass(slots=True)
class _Result:
    """A result on its way: its pickle, the blocks of its buffers, and the descriptors to come."""

    task_id: int
    payload: bytes
    places: list[Place]
    new_blocks: list[int]
    dropped_blocks: list[int]


class Worker:
    """A process and what this side knows of it."""

    def __init__(self, function: Callable[[Any, Job], Any]) -> None:
        context = _context()
        self.connection, theirs = context.Pipe(duplex=True)
        self._board_block = Block(anonymous_file(3 * 8))
        self._board = np.frombuffer(self._board_block.buffer(24), np.int64)
        self._board[:2] = _IDLE
        self.process = context.Process(
            target=_serve, args=(function, theirs), name="hiera_video loader", daemon=True
        )
        self.process.start()
        theirs.close()
        assert self.process.pid is not None
        with suppress(OSError):  # it may have ended already, which the next message will show
            reduction.send_handle(self.connection, self._board_block.descriptor, self.process.pid)
        self.tasks: dict[int, Any] = {}
        self.forgotten: set[int] = set()
        self._blocks: dict[int, Block] = {}
        self._unread: list[int] = []  # blocks to give back with the next task
        self._lock = threading.Lock()
        self._seen_count, self._stuck_sec = -1, 0.0

    def send(self, task_id: int, task: Any) -> bool:
        """Hand over a task; return False if the process is gone."""
        with self._lock:
            unused, self._unread = self._unread, []
        try:
            self.connection.send((task_id, task, unused))
        except (BrokenPipeError, ConnectionResetError):
            return False
        self.tasks[task_id] = task
        return True

    def receive(self) -> Finished | Failed | None:
        """Return the message that is there; None if the process is gone."""
        try:
            message = self.connection.recv()
            if isinstance(message, Failed):
                return message
            for block in message.new_blocks:
                # A process that is stopped between the two would keep this one waiting for ever.
                if not any(self.connection.poll(1.0) for _ in range(_HANDLE_POLLS)):
                    return None
                self._blocks[block] = Block(reduction.recv_handle(self.connection))
        except (EOFError, OSError, RuntimeError, pickle.UnpicklingError):
            return None  # perhaps in the middle of a message
        for block in message.dropped_blocks:
            self._blocks.pop(block, None)  # what is still read of it stays mapped
        self.tasks.pop(message.task_id, None)
        buffers = [
            when_unused(self._blocks[p.block].buffer(p.num_bytes), self._giver_back(p.block))
            for p in message.places
        ]
        value = pickle.loads(message.payload, buffers=buffers)
        wanted = message.task_id not in self.forgotten
        self.forgotten.discard(message.task_id)
        return Finished(message.task_id, value, wanted)

    def forget(self) -> None:
        """Take no more interest in the tasks that it has."""
        self.forgotten.update(self.tasks)

    def current(self) -> tuple[int | None, int]:
        """Return the task and the step that it is, or was, at; None while it is at none."""
        task_id, step = int(self._board[0]), int(self._board[1])
        return (None if task_id == _IDLE else task_id), max(step, -1)

    @property
    def has_started(self) -> bool:
        """Whether the process has come so far as to read its tasks."""
        return bool(self._board[2])

    def stuck_for(self, passed_sec: float) -> float:
        """Add `passed_sec` to the time without progress; return that time in seconds.

        A process makes no progress while it stays at one step, or leaves the tasks it was sent
        unread. A task outside its steps, a download say, has a deadline of its own.
        """
        count = int(self._board[2])
        idle = self._board[0] == _IDLE
        exempt = not self.tasks if idle else self._board[1] == _IDLE
        if count != self._seen_count or exempt:
            self._seen_count, self._stuck_sec = count, 0.0
        else:
            self._stuck_sec += passed_sec
        return self._stuck_sec

    def kill(self, *, wait_sec: float = 0.0) -> int:
        """End the process, by itself or else at once; return its exit code, negative: a signal."""
        if wait_sec:
            self.process.join(wait_sec)
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode or 0

    def _giver_back(self, block: int) -> Callable[[], None]:
        def give_back() -> None:
            # Called by the garbage collector, in whatever thread: no more than a note.
            self._unread.append(block)

        return give_back


def _context() -> Any:
    """Return how processes start: from a server without threads or a GPU, so that they can always.

    A fork of this process could inherit a lock that another thread holds.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        make_room_for_sockets()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["hiera_video.data.build"])
        _start_server()
        return context
    return multiprocessing.get_context("spawn")


def _start_server() -> None:
    """Start the fork server with a run's signals blocked: they would interrupt its imports.

    The server and its children inherit the mask; this process gets its signals when it is lifted.
    """
    from multiprocessing import forkserver, resource_tracker  # not on every platform

    # The server would start the tracker first, which lets SIGINT and SIGTERM through as it starts.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals_of_runs())
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signals_of_runs() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGUSR1")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _serve(function: Callable[[Any, Job], Any], connection: Connection) -> None:
    """Work until the other side is gone; the whole life of a worker process."""
    _live_quietly()
    board_block = Block(reduction.recv_handle(connection))
    board = np.frombuffer(board_block.buffer(24), np.int64)
    arena = Arena()
    known: set[int] = set()
    board[2] += 1  # see Worker.has_started
    while True:
        try:
            task_id, task, unused = connection.recv()
        except (EOFError, OSError):
            return
        for block in unused:
            arena.give_back(block)
        board[1], board[2] = _NOT_BEGUN, board[2] + 1
        board[0] = task_id
        try:
            scratch = Scratch(arena)
            value = function(task, Job(board, scratch))
            _answer(connection, task_id, value, scratch=scratch, arena=arena, known=known)
            del value, scratch
        except (BrokenPipeError, ConnectionResetError):
            return
        except BaseException as error:
            user_error = error if isinstance(error, UserError) else None
            connection.send(Failed(traceback.format_exc(), user_error))
        board[0] = _IDLE


def _answer(
    connection: Connection,
    task_id: int,
    value: Any,
    *,
    scratch: Scratch,
    arena: Arena,
    known: set[int],
) -> None:
    """Send a result, large buffers by their place in shared memory; `known` blocks were sent."""
    places: list[Place] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        content = buffer.raw()
        if content.nbytes < _SHARED_FROM_BYTES:
            return True
        places.append(scratch.store(content))
        return False

    payload = pickle.dumps(value, protocol=5, buffer_callback=in_band)
    used = {place.block for place in places}
    for place in scratch.places:
        if place.block not in used:
            arena.give_back(place.block)  # taken, but not part of the result
    new = sorted(used - known)
    known |= used
    dropped, arena.dropped = arena.dropped, []
    connection.send(_Result(task_id, payload, places, new, dropped))
    for block in new:
        reduction.send_handle(connection, arena.blocks[block].descriptor, None)


def _live_quietly() -> None:
    """Leave signals to the process that owns this one, die with it, and use one thread."""
    for number in _signals_of_runs():
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    torch.set_num_threads(1)


def _die_with_parent() -> None:
    """Have the kernel kill this process when the one that it works for is gone.

    A thread that waits for it would not run while native code spins with the interpreter's lock.
    """
    parent = multiprocessing.parent_process()
    if sys.platform == "linux" and parent is not None:
        import fcntl  # not on every platform

        # A pipe whose other end only the parent holds; its closing is an event on this one.
        pipe = parent.sentinel
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        if wait([pipe], timeout=0):  # it closed before, while this process started: no event comes
            os._exit(1)
