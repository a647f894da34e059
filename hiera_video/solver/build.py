"""Build the optimizer and the learning rate schedule from a config."""

from typing import Any, Protocol

import torch
from torch import nn

from hiera_video.config import Config, iterations_per_epoch, views_per_video
from hiera_video.solver.param_groups import build_param_groups
from hiera_video.solver.schedule import cosine_with_warmup, scaled_lr
from hiera_video.utils import dist


class LrSchedule(Protocol):
    """The learning rate over a training."""

    def __call__(self, epoch: float, iterations: int | None = None) -> float:
        """Return the rate at a fractional epoch for a step of `iterations` (None: a full step)."""


def clips_per_iteration(cfg: Config, num_videos: int | None = None) -> int:
    """Return the clips that all processes together see in one iteration.

    TRAIN.BATCH_SIZE counts videos per machine, for any number of processes. `num_videos` is the
    length of the train list (None: enough for a batch), which limits a batch.
    """
    videos = cfg.TRAIN.BATCH_SIZE * dist.num_machines()
    if num_videos is not None:
        videos = min(videos, num_videos)
    return videos * views_per_video(cfg)


def iterations_per_step(cfg: Config, num_videos: int | None = None) -> int:
    """Return the iterations that a full optimizer step sums: no more than an epoch has."""
    if num_videos is None:
        return cfg.SOLVER.ACCUM_STEPS
    batch = cfg.TRAIN.BATCH_SIZE * dist.num_machines()
    return min(cfg.SOLVER.ACCUM_STEPS, iterations_per_epoch(num_videos, batch))


def effective_batch(cfg: Config, num_videos: int | None = None) -> int:
    """Return the clips that one full optimizer step sees, given `num_videos` to train on.

    Batch times machines times accumulation times repeated views.
    """
    return clips_per_iteration(cfg, num_videos) * iterations_per_step(cfg, num_videos)


def build_lr_schedule(cfg: Config, num_videos: int | None = None) -> LrSchedule:
    """Return the learning rate as a function, scaled to the clips that each step holds."""
    solver = cfg.SOLVER
    full_step = iterations_per_step(cfg, num_videos)
    clips = clips_per_iteration(cfg, num_videos)

    def lr_at(epoch: float, iterations: int | None = None) -> float:
        lr = cosine_with_warmup(
            epoch,
            base_lr=solver.BASE_LR,
            end_lr=solver.COSINE_END_LR,
            warmup_epochs=solver.WARMUP_EPOCHS,
            warmup_start_lr=solver.WARMUP_START_LR,
            max_epochs=solver.MAX_EPOCH,
        )
        batch = clips * (full_step if iterations is None else iterations)
        return scaled_lr(lr, effective_batch=batch, base_batch=solver.BASE_BATCH_SIZE)

    return lr_at


def build_optimizer(cfg: Config, model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW or SGD (with Nesterov momentum) over the model's parameter groups.

    A model says where its layers are by `num_layers` and `layer_index(name)`; one that does not is
    a single layer, and SOLVER.LAYER_DECAY then has nothing to act on.
    """
    solver = cfg.SOLVER
    groups = build_param_groups(
        model.named_parameters(),
        weight_decay=solver.WEIGHT_DECAY,
        layer_decay=solver.LAYER_DECAY,
        layer_index=getattr(model, "layer_index", lambda name: 0),
        num_layers=getattr(model, "num_layers", 1),
    )
    # The schedule sets the learning rate before every step.
    if solver.OPTIMIZING_METHOD == "sgd":
        nesterov = solver.MOMENTUM > 0
        return torch.optim.SGD(groups, lr=0.0, momentum=solver.MOMENTUM, nesterov=nesterov)
    # Fused: with two groups per layer, unfused AdamW is bound by kernel launches.
    optimizer = torch.optim.AdamW(
        groups, lr=0.0, betas=(solver.BETAS[0], solver.BETAS[1]), fused=True
    )
    optimizer.register_load_state_dict_pre_hook(_stay_fused)
    return optimizer


def _stay_fused(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Mark a loaded state as fused, so that the state of an unfused AdamW stays usable."""
    return {**state, "param_groups": [{**group, "fused": True} for group in state["param_groups"]]}


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr` times its layer's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
