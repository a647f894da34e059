"""Time the phases of one optimizer step: data wait, computation, communication."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hiera_video.benchmark.timing import wait_for
from hiera_video.data.loader import Batch, BatchLoader
from hiera_video.engine.tasks import Task
from hiera_video.engine.train import clip, read_scalars
from hiera_video.models.parts.scores import autocast
from hiera_video.solver.build import set_lr
from hiera_video.utils.errors import UserError

# In the order of execution; "communication" is measured by comparing with steps without it.
DATA, FORWARD, BACKWARD, OPTIMIZER, COMMUNICATION = PHASES = (
    "data wait",
    "forward",
    "backward",
    "optimizer",
    "communication",
)


class Feed(Protocol):
    """A source of batches; it keeps `held_bytes` bytes on the device."""

    held_bytes: int

    def next(self) -> Batch:
        """Return the next batch."""


class InMemory:
    """Repeats one batch that is already on the device, so that there is no data wait."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.held_bytes = batch.clips_BCTHW.nbytes

    def next(self) -> Batch:
        """Return the batch."""
        return self._batch


class FromLoader:
    """Yields the batches of a loader, epoch after epoch, with read-ahead as in training."""

    held_bytes = 0

    def __init__(self, loader: BatchLoader) -> None:
        self._batches = self._epochs(loader)

    def next(self) -> Batch:
        """Return the next batch. Raises a UserError if none of its videos could be decoded."""
        batch = next(self._batches)
        if len(batch) == 0:
            raise UserError(
                f"no video of a batch could be decoded, the last: {batch.failures[-1].reason} "
                "Try another DATA.PATH_TO_DATA_DIR or DATA.PATH_PREFIX."
            )
        return batch

    def _epochs(self, loader: BatchLoader) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from loader.batches(epoch)
            epoch += 1


@dataclass(frozen=True, slots=True)
class Stepper:
    """Makes the steps of one variant, as `engine/train.py` does.

    `lr` is the learning rate, `clip_norm` the largest norm of the gradient.
    """

    model: nn.Module
    wrapped: nn.Module  # the model, or its DistributedDataParallel
    task: Task
    optimizer: torch.optim.Optimizer
    device: torch.device
    bfloat16: bool
    lr: float
    clip_norm: float

    def step(self, feed: Feed, *, sync: bool = True) -> tuple[dict[str, float], float]:
        """Make one step; return the seconds of each phase, and the loss.

        Communication counts in the phase where it happens. Without `sync` there is no all-reduce.
        """
        clock = Clock(self.device)
        clock.mark()
        batch = feed.next().to(self.device)
        clock.mark()
        ddp = self.wrapped if isinstance(self.wrapped, DistributedDataParallel) else None
        with nullcontext() if sync or ddp is None else ddp.no_sync():
            with autocast(self.device, enabled=self.bfloat16):
                loss = self.task.step(batch, epoch=0, iteration=0)
            clock.mark()
            loss.backward()
        clock.mark()
        norm = clip(self.model, self.clip_norm)
        value, _ = read_scalars(loss, norm)  # the guard checks both before every step
        set_lr(self.optimizer, self.lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        clock.mark()
        phases = (DATA, FORWARD, BACKWARD, OPTIMIZER)
        return dict(zip(phases, clock.seconds(), strict=True)), value


class Clock:
    """Measures the seconds between marks; on a GPU, marks are events in its queue of work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Set a mark."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Wait until all marks are reached; return the seconds from each mark to the next."""
        wait_for(self._device)
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if self._device.type == "cuda":
            return [start.elapsed_time(end) / 1000 for start, end in pairs]
        return [end - start for start, end in pairs]
