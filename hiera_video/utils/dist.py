"""The processes of a run: the rank of this one, and collectives on numbers and objects.

Without a process group, every function behaves as in a run of one process. Numbers and objects are
exchanged between CPUs; `engine/parallel/data_parallel.py` reduces the gradients.
"""

import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from hiera_video.utils.errors import first_line

T = TypeVar("T")

# The store is on a machine nearby, or gone.
_ASK_SEC = 2.0
# Longest time that torch's agent takes to end a machine's processes after one has failed.
_UNTIL_ENDED_SEC = 5.0
# The environment variable with the name of this process's rendezvous.
_RENDEZVOUS = "HIERA_VIDEO_RENDEZVOUS"


def is_launched() -> bool:
    """Return whether torchrun or a similar launcher started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def open_store(*, timeout_sec: float, serve: bool = False) -> dist.Store:
    """Return the store that launched processes share; with `serve`, this process hosts it.

    The store may outlive the processes, and then holds what they wrote before a restart.

    Raises:
        OSError: The store cannot be reached within `timeout_sec`.
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


def set_rendezvous(name: str) -> None:
    """Remember the unique name of this process's rendezvous; no other restart has the same."""
    os.environ[_RENDEZVOUS] = name


def rendezvous_store(*, timeout_sec: float) -> dist.Store:
    """Return the part of the store that only the processes of this rendezvous use.

    Raises:
        OSError: The store cannot be reached within `timeout_sec`.
    """
    # Before the rendezvous, use the number of restarts, which may differ between machines.
    name = os.environ.get(_RENDEZVOUS) or f"before/{restart_count()}"
    return dist.PrefixStore(name, open_store(timeout_sec=timeout_sec))


def is_first_to_fail() -> bool:
    """Return whether this process is the first to fail; in the others, wait to be ended.

    A process that fails makes those that wait for it fail too, with errors that hide the cause.
    Call this before the process leaves its group.
    """
    if not is_launched():
        return True
    try:
        first = rendezvous_store(timeout_sec=_ASK_SEC).add("failures", 1) == 1
    except (OSError, RuntimeError):
        return True  # the store is gone: better to report twice than not at all
    if not first:
        time.sleep(_UNTIL_ENDED_SEC)
    return first


def in_group() -> bool:
    """Return whether this process has joined a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if in_group() else 0


def world_size() -> int:
    """Return the number of processes on all machines."""
    return dist.get_world_size() if in_group() else 1


def local_rank() -> int:
    """Return the rank of this process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if in_group() else 1


def num_machines() -> int:
    """Return the number of machines; all have the same number of processes."""
    return world_size() // local_world_size()


def is_main() -> bool:
    """Return whether this is rank 0, the process that writes files and logs."""
    return rank() == 0


def restart_count() -> int:
    """Return how often torch's elastic agent has restarted the processes; 0 without an agent.

    An agent counts only failures on its own machine, not restarts caused by other machines.
    """
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def was_restarted() -> bool:
    """Return whether any machine's agent has restarted the processes; all must call it."""
    return agree(restart_count() > 0)


def agree(flag: bool) -> bool:
    """Return in all processes whether `flag` is True in any of them; all must call it."""
    return total([float(flag)])[0] > 0


def total(values: Sequence[float]) -> list[float]:
    """Return the sums of the numbers over all processes, in float64; all must call it."""
    if world_size() == 1:
        return [float(value) for value in values]
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()


def gather(value: T) -> list[T]:
    """Return in all processes the value of each, by rank; values must be picklable."""
    if world_size() == 1:
        return [value]
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def gather_to_main(value: T) -> list[T] | None:
    """Return in rank 0 the value of each process, by rank, and None in the others."""
    if world_size() == 1:
        return [value]
    values: list[T | None] | None = [None] * world_size() if is_main() else None
    dist.gather_object(value, values)
    return values  # type: ignore[return-value]


def from_main(value: T) -> T:
    """Return in all processes the value of rank 0, which must be picklable."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def by_main(function: Callable[[], T]) -> T:
    """Call `function` only in rank 0, and return its result in all processes."""
    return from_main(function() if is_main() else None)  # type: ignore[return-value]
