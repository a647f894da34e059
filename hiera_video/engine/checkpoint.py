"""Checkpoints: written whole or not at all, read with weights_only, found again by their epoch."""

import os
import re
from typing import Any

import torch
import yaml
from torch import nn

from hiera_video.config import Config, to_yaml
from hiera_video.models.weights import load_state, model_state, read_checkpoint
from hiera_video.utils import io
from hiera_video.utils.errors import UserError

_NAME = re.compile(r"checkpoint_epoch_(\d{5,})\.pyth")


def checkpoint_folder(output_dir: str) -> str:
    """Return where a run's checkpoints stand."""
    return os.path.join(output_dir, "checkpoints")


def save_config(cfg: Config) -> None:
    """Save the resolved config in OUTPUT_DIR: `config.yaml`, or `config_test.yaml` of a test alone.

    Called once the run's weights are loaded, so that a run that is refused for a checkpoint of
    another model leaves the config of the run before it.
    """
    name = "config.yaml" if cfg.TRAIN.ENABLE else "config_test.yaml"
    path = os.path.join(cfg.OUTPUT_DIR, name)
    try:
        io.write_atomic(path, lambda file: file.write(to_yaml(cfg).encode()))
    except OSError as error:
        raise UserError(f"OUTPUT_DIR: {path!r} could not be written ({error}).") from None


def checkpoint_path(output_dir: str, epoch: int) -> str:
    """Return where the checkpoint after `epoch` finished epochs stands."""
    return os.path.join(checkpoint_folder(output_dir), f"checkpoint_epoch_{epoch:05d}.pyth")


def last_checkpoint(output_dir: str) -> str | None:
    """Return the checkpoint of the highest epoch in `output_dir`, or None."""
    folder = checkpoint_folder(output_dir)
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
        # PyTorch's writer hides what the system said behind an error of its own.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(
            f"OUTPUT_DIR: the checkpoint {path!r} could not be written ({cause}). Older "
            "checkpoints are intact: free some space and start again to go on from the last one."
        ) from None
    return path


def changed_keys(saved_yaml: str, cfg: Config) -> list[str]:
    """Return "KEY: then -> now" for each key that a checkpoint's `cfg` has another value of."""
    saved = _flat(yaml.safe_load(saved_yaml) or {})
    now = _flat(yaml.safe_load(to_yaml(cfg)))
    return [
        f"{key}: {saved.get(key)} -> {now.get(key)}"
        for key in dict.fromkeys([*saved, *now])
        if saved.get(key) != now.get(key)
    ]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat


def resume(path: str, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, str]:
    """Load a run's own checkpoint; return the number of finished epochs and its config's YAML.

    What the optimizer has gathered comes from the file, what the config says of it (weight decay,
    betas, momentum) from the config.

    Raises:
        UserError: the file is broken, or was written by a run of another model or optimizer.
    """
    key = "TRAIN.AUTO_RESUME"
    content: dict[str, Any] = read_checkpoint(path, key=key)
    missing = [name for name in ("epoch", "model_state", "optimizer_state") if name not in content]
    if missing:
        raise UserError(f"{key}: {path!r} has no {', '.join(missing)}: not a run's checkpoint.")
    load_state(model, model_state(content), path=path, key=key)
    ours, theirs = optimizer.param_groups, content["optimizer_state"]["param_groups"]
    if [_shape_of(group) for group in ours] != [_shape_of(group) for group in theirs]:
        raise UserError(
            f"{key}: {path!r} was written with another SOLVER.OPTIMIZING_METHOD, "
            "SOLVER.LAYER_DECAY or MODEL.FREEZE_LAYERS than the one configured. Try those it was "
            "trained with (config.yaml), another OUTPUT_DIR, or TRAIN.CHECKPOINT_FILE_PATH to "
            "start from it."
        )
    configured = [{name: group[name] for name in group if name != "params"} for group in ours]
    optimizer.load_state_dict(content["optimizer_state"])
    for group, settings in zip(optimizer.param_groups, configured, strict=True):
        group.update(settings)
    return int(content["epoch"]), str(content.get("cfg", ""))


def _shape_of(group: dict[str, Any]) -> tuple[object, ...]:
    """What has to be the same for one group's state to be another's: settings, names and scale."""
    return set(group), group["names"], group["lr_scale"]
