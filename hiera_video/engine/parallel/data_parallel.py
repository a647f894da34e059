"""Data parallelism: several processes train one model as one process would on all their clips."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hiera_video.config import Config
from hiera_video.data.dataset import Failure
from hiera_video.data.loader import Batch
from hiera_video.engine.parallel.fsdp import is_sharded, shard, share_gradients
from hiera_video.utils import dist


def wrap(cfg: Config, model: nn.Module, device: torch.device) -> nn.Module:
    """Return the module to call in forward passes, whose gradients are averaged over processes.

    With one process that is the model. With several and DIST.STRATEGY ddp, it is PyTorch's
    DistributedDataParallel, which copies rank 0's weights to all. With fsdp, it is the model,
    with its parameters sharded in place.
    """
    if dist.world_size() == 1 or not any(p.requires_grad for p in model.parameters()):
        return model
    if cfg.DIST.STRATEGY == "fsdp":
        shard(model, device, mixed_precision=cfg.TRAIN.MIXED_PRECISION)
        return model
    return data_parallel(model, device)


def data_parallel(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Return the model in DistributedDataParallel, which averages the gradients.

    On a CPU, a resumed run has the bits of a run that was never interrupted. DDP reorders its
    buckets after the first step, unless it looks for unused weights. The order of the buckets
    decides how more than two numbers add up, so on a CPU DDP is made to look. On a GPU some kernels
    add in varying order anyway, and speed matters more.
    """
    # No device_ids: they would move the masks to the GPU, and masks belong on the CPU. With bucket
    # views the gradients are not copied before they are sent.
    if device.type != "cpu":
        return DistributedDataParallel(model, gradient_as_bucket_view=True)
    return DistributedDataParallel(
        WithUnusedWeight(model), gradient_as_bucket_view=True, find_unused_parameters=True
    )


class WithUnusedWeight(nn.Module):
    """A model and an unused weight, without which DDP warns that it found no unused weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        """Return the model's output."""
        return self.model(*arguments, **settings)


@contextmanager
def gradients(wrapped: nn.Module, *, ends_group: bool) -> Iterator[None]:
    """Skip the gradient all-reduce except on the last accumulation step.

    Wrap the forward and the backward pass: DDP decides in the forward pass what it sends.
    """
    if is_sharded(wrapped):
        share_gradients(wrapped, now=ends_group)
    if ends_group or not isinstance(wrapped, DistributedDataParallel):
        yield
        return
    with wrapped.no_sync():
        yield


@dataclass(frozen=True, slots=True)
class Counts:
    """The batches of all processes in one iteration: `num_videos` and `num_clips` decoded.

    `failures` are the videos of all processes that did not decode. `weight` scales this process's
    mean loss so that the mean of the gradients over processes is the mean over all clips. It is 1
    if every process has the same number of clips.
    """

    num_videos: int
    num_clips: int
    failures: tuple[Failure, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What all processes know after `exchange`: `mean_loss` over all clips, and sums of `flags`.

    `stop` says whether any process was asked to end. `counts` describe the next batches.
    """

    mean_loss: float
    stop: bool
    flags: Sequence[float]
    counts: Counts


def exchange(
    upcoming: Batch | None,
    *,
    loss: float = 0.0,
    stop: bool = False,
    flags: Sequence[float] = (),
) -> Exchanged:
    """Share the facts of one iteration among all processes, in one all-reduce; all call it.

    Args:
        upcoming: this process's next batch; None after the last one.
        loss: this process's mean loss times its `Counts.weight`.
        stop: whether this process was asked to end.
        flags: numbers to sum, as many in every process.
    """
    num_here = 0 if upcoming is None else len(upcoming)
    num_videos_here = 0 if upcoming is None else upcoming.num_videos
    failures = () if upcoming is None else upcoming.failures
    sum_of_losses, num_stops, num_videos, num_clips, num_failures, *sums = dist.total(
        [loss, float(stop), num_videos_here, num_here, len(failures), *flags]
    )
    if num_failures and dist.world_size() > 1:  # rare, and then few
        failures = tuple(one for some in dist.gather(failures) for one in some)
    weight = num_here * dist.world_size() / max(num_clips, 1)
    counts = Counts(int(num_videos), int(num_clips), failures, weight)
    return Exchanged(sum_of_losses / dist.world_size(), num_stops > 0, sums, counts)
