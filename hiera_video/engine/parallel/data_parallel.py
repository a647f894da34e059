"""A model in several processes, which learn together what one would from all their clips."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hiera_video.config import Config
from hiera_video.data.batch import Batch
from hiera_video.data.dataset import Failure
from hiera_video.engine.parallel.fsdp import is_sharded, shard, share_gradients
from hiera_video.utils import dist


def wrap(cfg: Config, model: nn.Module, device: torch.device) -> nn.Module:
    """Return what to call for a forward pass whose gradients are the mean over all processes.

    With one process that is the model; with several, by DIST.STRATEGY, PyTorch's
    DistributedDataParallel, which first gives all of them rank 0's weights, or the model itself,
    cut up among them.
    """
    if dist.world_size() == 1 or not any(p.requires_grad for p in model.parameters()):
        return model
    if cfg.DIST.STRATEGY == "fsdp":
        shard(model, device, mixed_precision=cfg.TRAIN.MIXED_PRECISION)
        return model
    return data_parallel(model, device)


def data_parallel(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Return the model in PyTorch's wrapper, which sends the mean of the gradients to all.

    On the CPU a resumed run, whose first step is not its first, has the bits of one that was not
    interrupted. The wrapper sorts what it sends anew after a first step, and the order decides how
    more than two numbers add up; but not where it looks for unused weights. On a GPU, where some
    kernels add in an order of their own, time matters more.
    """
    # Without device_ids, which would bring the masks to the GPU, where they are not wanted. The
    # gradients live in what is sent, instead of being copied there.
    if device.type != "cpu":
        return DistributedDataParallel(model, gradient_as_bucket_view=True)
    return DistributedDataParallel(
        WithUnusedWeight(model), gradient_as_bucket_view=True, find_unused_parameters=True
    )


class WithUnusedWeight(nn.Module):
    """A model beside a weight that nothing uses, without which PyTorch warns that all are used."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        """Return what the model does."""
        return self.model(*arguments, **settings)


@contextmanager
def gradients(wrapped: nn.Module, *, ends_group: bool) -> Iterator[None]:
    """Share the gradients out only where an optimizer step ends; holds the passes of both ways."""
    if is_sharded(wrapped):
        share_gradients(wrapped, now=ends_group)
    if ends_group or not isinstance(wrapped, DistributedDataParallel):
        yield
        return
    with wrapped.no_sync():
        yield


@dataclass(frozen=True, slots=True)
class Tally:
    """The batches of all processes in one iteration.

    `num_videos` and `num_clips` that are there, `failures` of all, and the `weight` of this
    process's mean loss: 1 where all have as many clips, and such that the mean of the weighted
    gradients is that of all clips where they have not.
    """

    num_videos: int
    num_clips: int
    failures: tuple[Failure, ...]
    weight: float

    def mean_loss(self, loss: torch.Tensor) -> float:
        """Return the mean loss over all clips, the same in all processes, which all call this."""
        return dist.mean([self.weight * loss.item()])[0]


def tally(batch: Batch) -> Tally:
    """Count the clips and name the failures of an iteration; all processes call it."""
    num_videos, num_clips, num_failures = dist.total(
        [batch.num_videos, len(batch), len(batch.failures)]
    )
    failures = batch.failures
    if num_failures and dist.world_size() > 1:  # rare, and then small
        failures = tuple(one for some in dist.gather(failures) for one in some)
    return Tally(
        int(num_videos),
        int(num_clips),
        failures,
        len(batch) * dist.world_size() / max(num_clips, 1),
    )
