"""The processes of a run: which one this is, and what they tell one another.

Without a process group everything here is that of a run of one process. Numbers and objects travel
between CPUs; gradients are the business of `engine/parallel/data_parallel.py`.
"""

import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from hiera_video.utils.errors import UserError, first_line

T = TypeVar("T")

# The store is on this machine or on the next one, or gone.
_ASK_SEC = 2.0
# What torch's agent takes at most to end the processes of a machine where one has failed.
_UNTIL_ENDED_SEC = 5.0
# The variable with the name of the meeting that this process was at.
_MEETING = "HIERA_VIDEO_MEETING"


def is_launched() -> bool:
    """Say whether something like torchrun has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def open_store(*, timeout_sec: float, serve: bool = False) -> dist.Store:
    """Return the store that launched processes share; with `serve`, this one holds it.

    It may outlive them, and hold what those before a restart have written.

    Raises:
        OSError: it cannot be reached within `timeout_sec`.
    """
    try:
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=serve,
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout_sec),
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise OSError(first_line(error)) from None
    return dist.PrefixStore("hiera_video", store)


def set_meeting(name: str) -> None:
    """Take note of the meeting that this process was at: a name that no other restart has."""
    os.environ[_MEETING] = name


def meeting_store(*, timeout_sec: float) -> dist.Store:
    """Return the part of the store that is for those alone that this process has met.

    Raises:
        OSError: it cannot be reached within `timeout_sec`.
    """
    # Machines may count restarts differently, so before the meeting it is only likely theirs.
    name = os.environ.get(_MEETING) or f"before/{restart_count()}"
    return dist.PrefixStore(name, open_store(timeout_sec=timeout_sec))


def is_first_to_fail() -> bool:
    """Say whether this process is the first of all to fail; the others wait for their end.

    A process that fails takes those along that wait for it, and what these have to say is not why.
    Call it before the process leaves its group.
    """
    if not is_launched():
        return True
    try:
        first = meeting_store(timeout_sec=_ASK_SEC).add("failures", 1) == 1
    except (OSError, RuntimeError):
        return True  # nobody to ask: rather twice than not at all
    if not first:
        time.sleep(_UNTIL_ENDED_SEC)
    return first


def in_group() -> bool:
    """Say whether this process has met others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the number of this process among all, from 0."""
    return dist.get_rank() if in_group() else 0


def world_size() -> int:
    """Return the number of processes on all machines."""
    return dist.get_world_size() if in_group() else 1


def local_rank() -> int:
    """Return the number of this process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if in_group() else 1


def num_machines() -> int:
    """Return the number of machines; each has as many processes."""
    return world_size() // local_world_size()


def is_main() -> bool:
    """Say whether this is the process that writes files and logs: rank 0."""
    return rank() == 0


def restart_count() -> int:
    """Return how often torch's elastic agent has started the processes anew, 0 without one.

    An agent counts only the failures of its own machine, not restarts because of another one's.
    """
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def was_restarted() -> bool:
    """Say whether any machine's agent has started the processes anew; all must call it."""
    return agree(restart_count() > 0)


def agree(flag: bool) -> bool:
    """Return, in all processes, whether the flag is True in any; all must call it."""
    return total([float(flag)])[0] > 0


def total(values: Sequence[float]) -> list[float]:
    """Return the sums of the numbers over all processes, in float64; all must call it."""
    if world_size() == 1:
        return [float(value) for value in values]
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()


def mean(values: Sequence[float]) -> list[float]:
    """Return the means of the numbers over all processes; all must call it."""
    return [value / world_size() for value in total(values)]


def gather(value: T) -> list[T]:
    """Return every process's value, by rank, in all processes; it must pickle."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def gather_to_main(value: T) -> list[T] | None:
    """Return every process's value, by rank, in rank 0, and None in the others."""
    if world_size() == 1:
        return [value]
    values: list[T | None] | None = [None] * world_size() if is_main() else None
    dist.gather_object(value, values)
    return values  # type: ignore[return-value]


def from_main(value: T) -> T:
    """Return rank 0's value in all processes; it must pickle."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def by_main(function: Callable[[], T]) -> T:
    """Call the function in rank 0 alone, and return in all processes what it returned."""
    return from_main(function() if is_main() else None)  # type: ignore[return-value]


def barrier(timeout_sec: float) -> None:
    """Wait until all processes are here.

    Raises:
        UserError: some are not within `timeout_sec`, or are gone.
    """
    if world_size() == 1:
        return
    work = dist.all_reduce(torch.zeros(1), async_op=True)
    assert work is not None
    try:
        work.wait(timedelta(seconds=timeout_sec))
    except RuntimeError as error:
        raise UserError(
            f"rank {rank()} waited {timeout_sec:g} s for the other processes, in vain "
            f"({first_line(error)}). Their logs may say what keeps them."
        ) from None
