"""How the processes of a run start and meet, on one machine or many."""

import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hiera_video.engine.signals import CTRL_C_STATUS, REQUEUE_STATUS
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError, first_line

T = TypeVar("T")

_POLL_SEC = 0.1
# Signals that the agent passes on: a scheduler's notice of the end, beside those torch handles.
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


@contextmanager
def process_group(*, cpu_only: bool, timeout_sec: float) -> Iterator[None]:
    """Meet the other processes, if torchrun or the like has started any, and part at the end.

    After an exception nothing is waited for: the others may be in a call that will not return.

    Raises:
        UserError: not all have come within `timeout_sec`; the message names those missing.
    """
    if not dist.is_launched():
        yield
        return
    store = meet(timeout_sec)
    use_gpu = torch.cuda.is_available() and not cpu_only
    if use_gpu and dist.local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(dist.local_rank())
    torch.distributed.init_process_group(
        # Numbers and objects stay on the CPU, so that no step waits for them on the GPU.
        "cpu:gloo,cuda:nccl" if use_gpu else "gloo",
        store=torch.distributed.PrefixStore("group", store),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=timeout_sec),
    )
    yield
    torch.distributed.destroy_process_group()


def meet(timeout_sec: float) -> torch.distributed.Store:
    """Wait until all processes of the run are there; return their store.

    Raises:
        UserError: some are not there in time, or rank 0's machine does not answer.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # torch's agent holds the store for its processes, and lives longer than they do.
    by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = dist.open_store(timeout_sec=timeout_sec, serve=rank == 0 and not by_agent)
    except OSError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            f"MASTER_ADDR:MASTER_PORT must be where rank 0 or its torchrun answers, got {where!r}, "
            f"where rank {rank} found nobody ({error}). Try the address of the first machine, and "
            "see that no firewall is between."
        ) from None
    try:
        return _meet_at(store, rank, world_size, timeout_sec)
    except RuntimeError as error:
        raise UserError(
            f"rank 0, which all processes meet at, has ended before all were there "
            f"({first_line(error)}). Its output says why."
        ) from None


def _meet_at(
    store: torch.distributed.Store, rank: int, world_size: int, timeout_sec: float
) -> torch.distributed.Store:
    """Return the part of the store that is for those alone who are here now.

    torch's agent keeps its store over a restart, and what the processes before have left in it; and
    the agents of several machines do not agree on the number of restarts. So rank 0 gives the
    rendezvous a new name, and ends it with a list of who came. A process whose own mark is not in
    the list has read what an earlier rendezvous left, and waits for the new one.
    """
    own, end = uuid4().hex, time.monotonic() + timeout_sec
    if rank == 0:
        store.set("rendezvous", own)
    store.set(f"came/{rank}", "")
    while True:
        name = _read(store, "rendezvous")
        marks = [f"{name}/{other}" for other in range(world_size)]
        if name:
            store.set(marks[rank], own)
        if rank == 0 and store.check(marks):
            store.set(f"{name}/all", ",".join(_read(store, mark) for mark in marks))
        if own in _read(store, f"{name}/all").split(","):
            dist.set_rendezvous(name)
            return torch.distributed.PrefixStore(name, store)
        if time.monotonic() >= end:
            marks = marks if name else [f"came/{other}" for other in range(world_size)]
            missing = [other for other, mark in enumerate(marks) if not store.check([mark])]
            raise UserError(absent(missing or [0], world_size, timeout_sec))
        time.sleep(_POLL_SEC)


def _read(store: torch.distributed.Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def absent(missing: list[int], world_size: int, timeout_sec: float) -> str:
    """Return the message that names the ranks that have not come, and their machines."""
    per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    names = [
        f"{rank} (process {rank % per_machine} of machine {rank // per_machine})"
        for rank in missing
    ]
    return (
        f"DIST.TIMEOUT_SEC must be enough for all {world_size} processes to start, got "
        f"{timeout_sec:g}: {len(missing)} did not come: rank {', '.join(names)}. Look what became "
        "of them, or try a longer time."
    )


def run_processes(function: Callable[..., T], *arguments: Any, num_processes: int) -> T | None:
    """Run the function in processes of this machine, by torch's elastic agent.

    Returns what rank 0's call returned.

    Raises:
        UserError: one of them raised it.
        SystemExit: one failed otherwise, and its traceback is printed; or a signal ended the run.
    """
    settings: dict[str, Any] = {
        "signals_to_handle": _SIGNALS,
        "shutdown_timeout": int(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")),
    }
    known = {field.name for field in dataclasses.fields(LaunchConfig)}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=f"hiera_video-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        **{name: value for name, value in settings.items() if name in known},
    )
    try:
        with _quiet_agent():
            return elastic_launch(config, in_process)(function, *arguments)[0]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise _told(rank, failure) from None
    except SignalException as ended:
        by_ctrl_c = ended.sigval == signal.SIGINT
        raise SystemExit(CTRL_C_STATUS if by_ctrl_c else REQUEUE_STATUS) from None


def in_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call the function; of the processes in which it fails, only the first one says so."""
    try:
        return function(*arguments)
    except Exception:
        if not dist.is_first_to_fail():
            raise SystemExit(1) from None
        raise


def _told(rank: int, failure: ProcessFailure) -> BaseException:
    """Return the exception that tells of a process's failure what its own would have told."""
    if isinstance(failure.message, dict):
        kind, _, text = str(failure.message["message"]).partition(": ")
        if kind == UserError.__name__:
            return UserError(text)
        print(
            f"rank {rank} failed:\n{failure.message['extraInfo']['py_callstack']}", file=sys.stderr
        )
        return SystemExit(1)
    if failure.exitcode < 0:
        return UserError(
            f"rank {rank} was ended by {failure.signal_name()}, perhaps for want of memory. The "
            "same command goes on from the last checkpoint, if any."
        )
    return SystemExit(failure.exitcode)


@contextmanager
def _quiet_agent() -> Iterator[None]:
    """Keep torch's agent from telling what this module tells in its own words."""
    names = ("torch.distributed.elastic.multiprocessing.api", "torch.multiprocessing.spawn")
    for name in names:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name in names:
            logging.getLogger(name).disabled = False
