"""Checkpoints: written whole or not at all, read with weights_only, found again by their epoch."""

import os
import re
from typing import Any

import torch
from torch import nn

from hiera_video.models.weights import read_checkpoint
from hiera_video.utils import io
from hiera_video.utils.errors import UserError

_NAME = re.compile(r"checkpoint_epoch_(\d{5,})\.pyth")


def checkpoint_path(output_dir: str, epoch: int) -> str:
    """Return where the checkpoint after `epoch` finished epochs stands."""
    return os.path.join(output_dir, "checkpoints", f"checkpoint_epoch_{epoch:05d}.pyth")


def last_checkpoint(output_dir: str) -> str | None:
    """Return the checkpoint of the highest epoch in `output_dir`, or None."""
    folder = os.path.join(output_dir, "checkpoints")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    epochs = [int(match.group(1)) for name in names if (match := _NAME.fullmatch(name))]
    return checkpoint_path(output_dir, max(epochs)) if epochs else None


def save_checkpoint(
    output_dir: str,
    *,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config_yaml: str,
    class_names: list[str] | None,
) -> str:
    """Save what a run needs to go on after `epoch` finished epochs; return the path.

    Plain types only: `epoch`, `model_state`, `optimizer_state`, `cfg` (YAML text), `scaler_state`
    (empty: bfloat16 needs no loss scaling) and `class_names`.

    Raises:
        UserError: the file cannot be written; older checkpoints are untouched.
    """
    path = checkpoint_path(output_dir, epoch)
    content = {
        "epoch": epoch,
        "model_state": model.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "cfg": config_yaml,
        "scaler_state": {},
        "class_names": class_names,
    }
    try:
        io.make_dirs(os.path.dirname(path))
        io.write_atomic(path, lambda file: torch.save(content, file))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"OUTPUT_DIR: the checkpoint {path!r} could not be written ({error}). Older "
            "checkpoints are intact: free some space and start again to go on from the last one."
        ) from None
    return path


def resume(path: str, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a run's own checkpoint into model and optimizer; return the number of finished epochs.

    Raises:
        UserError: the file is broken, or was written by a run of another model.
    """
    content: dict[str, Any] = read_checkpoint(path, key="TRAIN.AUTO_RESUME")
    try:
        model.load_state_dict(content["model_state"])
        optimizer.load_state_dict(content["optimizer_state"])
        return int(content["epoch"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"TRAIN.AUTO_RESUME: {path!r} does not fit the configured model and optimizer "
            f"({reason}). Try another OUTPUT_DIR, or TRAIN.AUTO_RESUME False."
        ) from None
