"""From config to optimizer and learning rate."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from hiera_video.config import Config, views_per_video
from hiera_video.solver.param_groups import build_param_groups
from hiera_video.solver.schedule import cosine_with_warmup, scaled_lr
from hiera_video.utils import dist


def effective_batch(cfg: Config) -> int:
    """Return the clips that one optimizer step sees.

    Batch times machines times accumulation times repeated views. TRAIN.BATCH_SIZE, in videos, is a
    machine's, whatever the number of its processes.
    """
    videos = cfg.TRAIN.BATCH_SIZE * dist.num_machines() * cfg.SOLVER.ACCUM_STEPS
    return videos * views_per_video(cfg)


def build_lr_schedule(cfg: Config) -> Callable[[float], float]:
    """Return the function from fractional epoch to learning rate, scaled to the effective batch."""
    solver = cfg.SOLVER
    scaled = partial(
        scaled_lr, effective_batch=effective_batch(cfg), base_batch=solver.BASE_BATCH_SIZE
    )
    return partial(
        cosine_with_warmup,
        base_lr=scaled(solver.BASE_LR),
        end_lr=scaled(solver.COSINE_END_LR),
        warmup_epochs=solver.WARMUP_EPOCHS,
        warmup_start_lr=scaled(solver.WARMUP_START_LR),
        max_epochs=solver.MAX_EPOCH,
    )


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
    # One kernel a group: there are two groups for each layer, and more kernels than time to start.
    optimizer = torch.optim.AdamW(
        groups, lr=0.0, betas=(solver.BETAS[0], solver.BETAS[1]), fused=True
    )
    optimizer.register_load_state_dict_pre_hook(_stay_fused)
    return optimizer


def _stay_fused(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Have the state of an AdamW that was not fused loaded as that of one that is."""
    return {**state, "param_groups": [{**group, "fused": True} for group in state["param_groups"]]}


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr` times its layer's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
