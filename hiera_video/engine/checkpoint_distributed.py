"""Distributed checkpoints: each process writes its partition, while training goes on.

The form of the folder is that of `utils/distributed.py`. It is whole when its index is renamed into
place; until then the checkpoints before it stay, and a run that dies goes on from these.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.distributed.checkpoint import async_save
from torch.distributed.checkpoint.api import CheckpointException

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.distributed_storage import Writer
from hiera_video.checkpoints.misfits import find_misfits
from hiera_video.checkpoints.run_folder import Position, checkpoint_path, remove, remove_old
from hiera_video.engine.checkpoint import (
    refuse_other_optimizer,
    set_optimizer,
    write_checkpoint,
    write_failure,
)
from hiera_video.engine.ema import WeightAverage
from hiera_video.engine.signals import SIGNALS
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError

_KEY = "TRAIN.AUTO_RESUME"


class ShardedSaves:
    """Writes the checkpoints of a run, one at a time; all processes call all of it together.

    The next call of any method, within a step, raises the error of a save that failed. Left as a
    context, it waits for the last one, whatever ends the run.

    Args:
        output_dir: where the checkpoints stand.
        keep: TRAIN.KEEP_CHECKPOINTS, the older ones are removed when a new one is whole.
        timeout_sec: longest that the processes wait for one another's writing.
        warn: called if a save failed while the run ends for another reason.
    """

    def __init__(
        self, output_dir: str, *, keep: int, timeout_sec: float, warn: Callable[[str], None]
    ) -> None:
        self._output_dir = output_dir
        self._keep = keep
        self._warn = warn
        # What is sent while training goes on must not get between what training sends.
        self._group = torch.distributed.new_group(
            backend="gloo", timeout=timedelta(seconds=timeout_sec)
        )
        self._writing: tuple[Future[Any], str, Position] | None = None

    def save(self, position: Position, content: Mapping[str, Any]) -> str:
        """Copy what is to be saved and begin to write it; return the path of the folder.

        Waits first for what is being written; `content` is a checkpoint's, with shares.

        Raises:
            UserError: this or the last one cannot be written; older checkpoints are untouched.
        """
        self.wait()
        tensors, rest = distributed.flatten(content)
        path = checkpoint_path(self._output_dir, *position, ending=distributed.ENDING)
        dist.by_main(lambda: _begin(path, rest))
        # The writer copies the tensors before this returns.
        future = async_save(dict(tensors), storage_writer=Writer(path), process_group=self._group)
        assert isinstance(future, Future)
        self._writing = future, path, position
        return path

    def check(self) -> None:
        """Finish the save in flight if it is done.

        Raises:
            UserError: it could not be written; older checkpoints are untouched.
        """
        if self._writing and self._writing[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written any more.

        Raises:
            UserError: it could not be written; older checkpoints are untouched.
        """
        if self._writing is None:
            return
        future, path, position = self._writing
        try:
            future.result()
        except (Exception, CheckpointException) as error:
            self._writing = None
            if dist.is_main():
                remove(path)
            raise write_failure(path, _cause(error)) from None
        self._writing = None
        if dist.is_main():
            remove_old(self._output_dir, position, keep=self._keep)

    def __enter__(self) -> "ShardedSaves":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.wait()
        elif issubclass(kind, (SystemExit, KeyboardInterrupt)):
            # A scheduler may tell every process, and torchrun tells them again: they are at it.
            with _deaf():
                self.wait()
        elif issubclass(kind, UserError):
            try:
                self.wait()
            except UserError as failure:
                self._warn(str(failure))


def _begin(path: str, rest: Mapping[str, Any]) -> None:
    remove(path)  # half-written, by a run that died
    write_checkpoint(f"{path}/{distributed.PLAIN}", rest)


def _cause(error: BaseException) -> object:
    """Return what the first rank that failed has to say."""
    if not isinstance(error, CheckpointException) or not error.failures:
        return error
    rank, (failure, _) = min(error.failures.items(), key=lambda item: item[0])
    return f"rank {rank}: {failure}"


@contextmanager
def _deaf() -> Iterator[None]:
    """Within this, the process takes no notice of the signals that end a run."""
    main = threading.current_thread() is threading.main_thread()  # no other one may say so
    numbers = [number for name in SIGNALS if main and (number := getattr(signal, name, None))]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def restore_shares(
    content: Mapping[str, Any],
    path: str,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
) -> None:
    """Load a distributed checkpoint, by any number of processes, into a partitioned model.

    `content` is what `read_plain` returned; an `average` that it lacks begins at the weights.

    Raises:
        UserError: it was written by a run of another model or optimizer.
    """
    there = distributed.shapes(path, key=_KEY)
    model_there = distributed.join(there, content).get(distributed.MODEL, {})
    find_misfits(model, model_there).refuse(path, key=_KEY)
    refuse_other_optimizer(content, path, optimizer)
    tensors = {f"{distributed.MODEL}/{name}": value for name, value in model.state_dict().items()}
    averaged = average is not None and "ema_steps" in content
    for name, value in (average.shares() if average and averaged else {}).items():
        tensors[f"{distributed.AVERAGE}/{name}"] = value
    moments = _moments(there, optimizer)
    distributed.load(path, tensors | moments)
    set_optimizer(optimizer, distributed.join(moments, content)[distributed.OPTIMIZER])
    if average and averaged:
        average.num_steps = int(content["ema_steps"])
    elif average:
        average.restart()


def _moments(
    there: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """Return tensors to be filled with what an optimizer gathered, partitioned as its weights."""
    parameters = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    found = {}
    for name, value in there.items():
        part, number, *_ = name.split("/")
        if part == distributed.OPTIMIZER:
            parameter = parameters[int(number)]
            if parameter.shape == value.shape:
                found[name] = torch.empty_like(parameter, dtype=value.dtype)
            else:
                found[name] = torch.empty(value.shape, dtype=value.dtype)
    return found
