"""One worker process of a pool: the code that it runs, and the parent's handle to it.

Messages are small. Arrays go through shared memory, whose descriptors are sent once. A board of
three numbers in shared memory records the current task and step. The parent can read the board even
if the process no longer responds.
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

# Smaller buffers are sent in the message itself.
_SHARED_FROM_BYTES = 4096
_IDLE = -1
_NOT_BEGUN = -2  # has a task, but has begun none of its steps
# Seconds to wait for a descriptor, which is sent right after its message.
_HANDLE_POLLS = 30


class Job:
    """Passed to the function with each task: reports its progress and allocates shared memory."""

    def __init__(self, board: np.ndarray | None = None, scratch: Scratch | None = None) -> None:
        self._board = board
        self._scratch = scratch

    def begin(self, step: int) -> None:
        """Start step number `step` (0 or more) and its deadline.

        -1 marks work without a deadline, for example a download with its own timeout.
        """
        if self._board is not None:
            self._board[1] = step
            self._board[2] += 1

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Allocate an uninitialised array that the function can return without a copy."""
        return (
            np.empty(shape, dtype) if self._scratch is None else self._scratch.empty(shape, dtype)
        )


@dataclass(slots=True)
class Finished:
    """The result of a task; `wanted` is False if the task was cancelled meanwhile."""

    task_id: int
    value: Any
    wanted: bool = True


@dataclass(slots=True)
class Failed:
    """The function raised an exception; this is a bug unless it is a `user_error`."""

    traceback: str
    user_error: UserError | None = None


@dataclass(slots=True)
class _Result:
    """The message of a result: its pickle, the places of its buffers, and the new blocks.

    The descriptors of `new_blocks` follow the message.
    """

    task_id: int
    payload: bytes
    places: list[Place]
    new_blocks: list[int]
    dropped_blocks: list[int]


class Worker:
    """The parent's handle to a worker process: its connection, tasks, blocks and board."""

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
        with suppress(OSError):  # it may have ended already; the next message then fails
            reduction.send_handle(self.connection, self._board_block.descriptor, self.process.pid)
        self.tasks: dict[int, Any] = {}
        self.forgotten: set[int] = set()
        self._blocks: dict[int, Block] = {}
        self._unread: list[int] = []  # blocks to give back with the next task
        self._lock = threading.Lock()
        self._seen_count, self._stuck_sec = -1, 0.0

    def send(self, task_id: int, task: Any) -> bool:
        """Send a task to the process; return False if the process is gone."""
        with self._lock:
            unused, self._unread = self._unread, []
        try:
            self.connection.send((task_id, task, unused))
        except (BrokenPipeError, ConnectionResetError):
            return False
        self.tasks[task_id] = task
        return True

    def receive(self) -> Finished | Failed | None:
        """Read the pending message; return None if the process is gone."""
        try:
            message = self.connection.recv()
            if isinstance(message, Failed):
                return message
            for block in message.new_blocks:
                # If the process is stopped before it sends the descriptor, do not wait forever.
                if not any(self.connection.poll(1.0) for _ in range(_HANDLE_POLLS)):
                    return None
                self._blocks[block] = Block(reduction.recv_handle(self.connection))
        except (EOFError, OSError, RuntimeError, pickle.UnpicklingError):
            return None  # perhaps in the middle of a message
        for block in message.dropped_blocks:
            self._blocks.pop(block, None)  # stays mapped while arrays over it exist
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
        """Cancel the tasks of this process; their results are discarded."""
        self.forgotten.update(self.tasks)

    def current(self) -> tuple[int | None, int]:
        """Return the current, or last, task and step; the task is None between tasks."""
        task_id, step = int(self._board[0]), int(self._board[1])
        return (None if task_id == _IDLE else task_id), max(step, -1)

    @property
    def has_started(self) -> bool:
        """Whether the process has finished its imports and reads tasks."""
        return bool(self._board[2])

    def stuck_for(self, passed_sec: float) -> float:
        """Add `passed_sec` to the time without progress; return that time in seconds.

        A process makes no progress while it stays at one step or leaves its tasks unread. Work
        outside the steps of a task, such as a download, has its own timeout and is not counted.
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
        """Kill the process unless it exits within `wait_sec`; return its exit code.

        A negative exit code is the number of the signal that ended the process.
        """
        if wait_sec:
            self.process.join(wait_sec)
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode or 0

    def _giver_back(self, block: int) -> Callable[[], None]:
        def give_back() -> None:
            # The garbage collector may call this in any thread, so only append here.
            self._unread.append(block)

        return give_back


def _context() -> Any:
    """Return the multiprocessing context: a fork server without threads or a GPU if possible.

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
    """Start the fork server with the run's signals blocked, as they would interrupt its imports.

    The server and its children inherit the mask. This process receives pending signals once its own
    mask is restored.
    """
    from multiprocessing import forkserver, resource_tracker  # not on every platform

    # Otherwise the server starts the tracker, which unblocks SIGINT and SIGTERM as it starts.
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
    """Run tasks until the parent closes the connection; the main function of a worker process."""
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
    """Send a result to the parent, with large buffers as places in shared memory.

    `known` holds the blocks whose descriptors were sent before.
    """
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
            arena.give_back(place.block)  # allocated, but not part of the result
    new = sorted(used - known)
    known |= used
    dropped, arena.dropped = arena.dropped, []
    connection.send(_Result(task_id, payload, places, new, dropped))
    for block in new:
        reduction.send_handle(connection, arena.blocks[block].descriptor, None)


def _live_quietly() -> None:
    """Set up a worker process: ignore the run's signals, exit with the parent, use one thread."""
    for number in _signals_of_runs():
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    torch.set_num_threads(1)


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone.

    A thread that watches the parent would not run while native code loops holding the GIL.
    """
    parent = multiprocessing.parent_process()
    if sys.platform == "linux" and parent is not None:
        import fcntl  # not on every platform

        # Only the parent holds the other end of this pipe. When it closes, this end gets an event.
        pipe = parent.sentinel
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        if wait([pipe], timeout=0):  # it closed during the start of this process, without event
            os._exit(1)
