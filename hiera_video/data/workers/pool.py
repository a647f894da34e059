"""A pool of worker processes in which a task that hangs or crashes affects no other task.

A video decoder is native code, which may loop forever or crash. The pool therefore watches its
processes. Each task is a sequence of steps, one per video. If a step exceeds the deadline, the pool
kills the process and starts a new one, and the run continues. Tasks that waited in the killed
process go to other processes. Results are arrays in shared memory (`memory.py`), read without a
copy.
"""

import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any

from hiera_video.data.workers.process import Failed, Finished, Job, Worker

_POLL_SEC = 0.5
# One task to work on, and one to start while the result of the first is fetched.
_TASKS_PER_WORKER = 2
# The imports of a new process may come over a slow network.
_MAX_START_SEC = 600.0
# If processes die before they have read a task, the cause is not a file.
_MAX_USELESS_STARTS = 3


@dataclass(frozen=True, slots=True)
class Done:
    """The value that a task returned."""

    task_id: int
    value: Any


@dataclass(frozen=True, slots=True)
class Lost:
    """A task whose process died or was killed, the step it was at, and the reason.

    `step` is -1 if no step had begun. If `hung`, the step exceeded the deadline. Otherwise the
    process died, by `signal` if that is not 0. The pool does not retry the task; submit it again if
    needed.
    """

    task_id: int
    step: int
    reason: str
    hung: bool = False
    signal: int = 0


class WorkerError(RuntimeError):
    """A task raised an exception in a worker process; the message holds its traceback."""


class WorkerPool:
    """Runs `function(task, job)` in worker processes; `job` is a `Job`.

    Args:
        function: a picklable callable; it is pickled once for every process.
        num_workers: number of processes, at least 1. They start with the first task.
        deadline_sec: the longest time that one step may take, or that a process may leave a task
            unread; 0 means no limit. Time in which this process does not watch (a GPU step, a
            suspended job) does not count.
    """

    def __init__(
        self,
        function: Callable[[Any, Job], Any],
        *,
        num_workers: int,
        deadline_sec: float,
    ) -> None:
        self._function = function
        self._deadline_sec = deadline_sec
        self._waiting: deque[tuple[int, Any]] = deque()
        self._lost: deque[Lost] = deque()
        self._workers: list[Worker | None] = [None] * num_workers
        self._useless_starts = 0
        self._looked_at = time.monotonic()
        # Workers ignore SIGTERM. Kill them at exit, before multiprocessing waits for them.
        self._at_exit = Finalize(self, _kill_all, args=(self._workers,), exitpriority=100)

    def submit(self, task_id: int, task: Any) -> None:
        """Queue a task; its result carries `task_id`, which must be unique."""
        self._waiting.append((task_id, task))
        self._hand_out()

    def next(self, timeout_sec: float | None = None) -> Done | Lost | None:
        """Wait for the next result of any task; return None after `timeout_sec`.

        Raises:
            WorkerError: the task raised an exception. This is a bug: a task returns the failure of
                a bad file as a value.
            UserError: the task raised this UserError.
        """
        give_up_at = None if timeout_sec is None else time.monotonic() + timeout_sec
        while True:
            if self._lost:
                return self._lost.popleft()
            self._hand_out()
            workers = [worker for worker in self._workers if worker]
            if not workers and not self._waiting:
                return None  # nothing was submitted
            wait_sec = _POLL_SEC
            if give_up_at is not None:
                wait_sec = max(0.0, min(wait_sec, give_up_at - time.monotonic()))
            ready = set(wait([worker.connection for worker in workers], wait_sec))
            for worker in workers:
                if worker.connection in ready and (done := self._receive(worker)):
                    return done
            self._watch()
            if give_up_at is not None and time.monotonic() >= give_up_at and not self._lost:
                return None

    def cancel(self) -> None:
        """Cancel all tasks: empty the queue and discard the results of tasks in progress."""
        self._waiting.clear()
        self._lost.clear()
        for worker in filter(None, self._workers):
            worker.forget()

    def close(self) -> None:
        """Kill the processes; the tasks in progress are lost."""
        _kill_all(self._workers)

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process_ids(self) -> list[int]:
        """The ids of the running processes."""
        return [worker.process.pid or 0 for worker in self._workers if worker]

    def _hand_out(self) -> None:
        """Send waiting tasks to the processes that have the fewest tasks."""
        while self._waiting:
            loads = [len(w.tasks) if w else 0 for w in self._workers]
            place = loads.index(min(loads))
            if loads[place] >= _TASKS_PER_WORKER:
                return
            worker = self._workers[place]
            if worker is None:
                worker = self._workers[place] = Worker(self._function)
            task_id, task = self._waiting.popleft()
            if not worker.send(task_id, task):
                self._waiting.appendleft((task_id, task))
                self._bury(worker)

    def _receive(self, worker: Worker) -> Done | None:
        message = worker.receive()
        if message is None:
            self._bury(worker)
            return None
        self._useless_starts = 0
        if isinstance(message, Failed):
            self.close()
            if message.user_error is not None:
                raise message.user_error
            raise WorkerError(f"in a data loading process:\n{message.traceback}")
        if isinstance(message, Finished) and message.wanted:
            return Done(message.task_id, message.value)
        return None

    def _watch(self) -> None:
        """Kill processes that exceed the deadline in a step, or leave a task unread too long."""
        now = time.monotonic()
        # A pause in this process is not the workers' fault, so count at most two polls of it.
        passed_sec = min(now - self._looked_at, 2 * _POLL_SEC)
        self._looked_at = now
        for worker in self._workers:
            if worker is None:
                continue
            limit_sec = self._deadline_sec
            if not worker.has_started:
                limit_sec = max(limit_sec, _MAX_START_SEC)
            if worker.stuck_for(passed_sec) > limit_sec and self._deadline_sec > 0:
                self._bury(worker, hung=True)

    def _bury(self, worker: Worker, *, hung: bool = False) -> None:
        """Remove a process that died or hangs; report its current task, requeue its other tasks.

        Raises:
            WorkerError: too many processes in a row ended before they did anything.
        """
        place = self._workers.index(worker)
        self._workers[place] = None
        # If its connection closed, the process is exiting: wait to get its own exit code.
        exit_code = worker.kill(wait_sec=0.0 if hung else 1.0)
        task_id, step = worker.current()
        tasks = list(worker.tasks.items())
        if task_id is None:
            # A process that hangs between two tasks has already worked, so it does not count.
            self._useless_starts += not (hung and worker.has_started)
            if self._useless_starts >= _MAX_USELESS_STARTS:
                self.close()
                what = "data loading processes end as soon as they start"
                if hung:
                    what = "data loading processes do not start"
                raise WorkerError(
                    f"{what} (exit code {exit_code}); "
                    "see their output above. A script that loads data must do so under "
                    "`if __name__ == '__main__':`."
                )
        else:
            reason = (
                f"took longer than {self._deadline_sec:g} s"
                if hung
                else f"its process died ({_cause_of_death(exit_code)})"
            )
            if task_id in worker.tasks and task_id not in worker.forgotten:
                killed_by = 0 if hung else max(-exit_code, 0)
                self._lost.append(Lost(task_id, step, reason, hung=hung, signal=killed_by))
        for other_id, task in reversed(tasks):
            if other_id != task_id and other_id not in worker.forgotten:
                self._waiting.appendleft((other_id, task))


def _kill_all(workers: list[Worker | None]) -> None:
    for place, worker in enumerate(workers):
        if worker:
            worker.kill()
            workers[place] = None


def _cause_of_death(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
