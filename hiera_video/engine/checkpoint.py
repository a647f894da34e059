"""Write a run's checkpoints atomically, and read the last undamaged one with weights_only."""

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.checkpoints.matching import load_state
from hiera_video.checkpoints.run_folder import (
    CONFIG_FILES,
    Position,
    checkpoint_folder,
    checkpoint_path,
    saved,
)
from hiera_video.config import Config, to_yaml
from hiera_video.data.class_names import contradiction
from hiera_video.engine.checkpoint_content import damage_in
from hiera_video.engine.parallel.fsdp import share_out, whole
from hiera_video.utils import disk, dist, io
from hiera_video.utils.byproducts import Warn, write_by_product
from hiera_video.utils.errors import UserError

_KEY = "TRAIN.AUTO_RESUME"


def save_config(cfg: Config, warn: Warn) -> None:
    """Save the resolved config in OUTPUT_DIR: `config.yaml`, or `config_test.yaml` of a test alone.

    Called once the run's weights are loaded, so that a run that is refused for a checkpoint of
    another model leaves the config of the run before it. Rank 0 writes; a failure to is handed to
    `warn`.
    """
    if not dist.is_main():
        return
    name = CONFIG_FILES[0] if cfg.TRAIN.ENABLE else CONFIG_FILES[1]
    write_by_product(os.path.join(cfg.OUTPUT_DIR, name), to_yaml(cfg).encode(), warn)


def run_state(
    *,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config_yaml: str,
    class_names: list[str] | None,
    iteration: int = 0,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a run needs to go on after `epoch` epochs and `iteration` more; not copied.

    Plain types only: `epoch`, `iteration`, `model_state`, `optimizer_state`, `cfg` (YAML text),
    `scaler_state` (empty: bfloat16 needs no loss scaling), `class_names`, and `more`.
    """
    content = {
        "epoch": epoch,
        "iteration": iteration,
        "model_state": model.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "cfg": config_yaml,
        "scaler_state": {},
        "class_names": class_names,
    }
    return content | dict(more or {})


def save_checkpoint(output_dir: str, *, epoch: int, iteration: int = 0, **state: Any) -> str:
    """Save what `run_state` returns of its arguments as a file; return the path.

    All processes call it, and rank 0 writes.

    Raises:
        UserError: the file cannot be written; older checkpoints are untouched.
    """
    path = checkpoint_path(output_dir, epoch, iteration)
    content = whole(run_state(epoch=epoch, iteration=iteration, **state))
    if dist.is_main():
        write_checkpoint(path, content)
    return path


def write_checkpoint(path: str, content: Mapping[str, Any]) -> None:
    """Write a checkpoint: to a file beside it, to the disk, then under its name.

    Raises:
        UserError: it cannot be written; what stood there is untouched.
    """
    folder = os.path.dirname(path)
    try:
        io.make_dirs(folder)
        disk.write_atomic(path, lambda file: torch.save(dict(content), file))
        disk.flush_folder(folder)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer hides what the system said behind an error of its own.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise write_failure(path, cause) from None


def write_failure(path: str, cause: object) -> UserError:
    """Return the error that says that a checkpoint could not be written."""
    return UserError(
        f"OUTPUT_DIR: the checkpoint {path!r} could not be written ({cause}). Older checkpoints "
        "are intact: free some space and start again to go on from the last one."
    )


def read_last(output_dir: str, warn: Callable[[str], None]) -> tuple[str, dict[str, Any]] | None:
    """Return path and content of the last checkpoint that is whole, or None if there is none.

    Later ones that are damaged, or that no run can have written, are skipped with a warning.
    The tensors of a sharded one are on the meta device.

    Raises:
        UserError: there are checkpoints, and all of them are broken.
    """
    broken: list[str] = []
    for position, path in saved(output_dir):
        try:
            return path, _read_whole(path, position)
        except UserError as error:
            broken.append(str(error))
            warn(f"skipped a checkpoint: {error}")
    if broken:
        raise UserError(
            f"{broken[0]} There is no whole checkpoint in {checkpoint_folder(output_dir)!r}. Try "
            "another OUTPUT_DIR for a new run."
        )
    return None


def _read_whole(path: str, position: Position) -> dict[str, Any]:
    is_folder = distributed.is_folder(path)
    content = (
        distributed.read_shapes(path, key=_KEY) if is_folder else read_checkpoint(path, key=_KEY)
    )
    # PyTorch does not look at the checksums it writes; a damaged weight would be loaded.
    damage = "" if is_folder else _wrong_checksum(path)
    if damage := damage or damage_in(content, position, on_meta=is_folder):
        raise UserError(f"{_KEY}: {path!r} is damaged ({damage}).")
    return content


def _wrong_checksum(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return str(error)
    return f"checksum of {damaged}" if damaged else ""


def restore(
    content: dict[str, Any], path: str, *, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Load a run's own checkpoint into model and optimizer; `path` is for messages.

    What the optimizer has gathered comes from the file, what the config says of it (weight decay,
    betas, momentum) from the config.

    Raises:
        UserError: it was written by a run of another model or optimizer.
    """
    load_state(model, content["model_state"], path=path, key=_KEY)
    refuse_other_optimizer(content, path, optimizer)
    set_optimizer(optimizer, content["optimizer_state"])


def refuse_other_classes(
    content: Mapping[str, Any], names: Sequence[str] | None, path: str, *, key: str
) -> None:
    """Raise a UserError if a checkpoint and a data set contradict each other about class names."""
    if said := contradiction(content.get("class_names"), names):
        raise UserError(
            f"{key} must be a checkpoint of the data set's classes, got {path!r}: {said}. Try the "
            "classes.txt (or class folders) it was trained with."
        )


def refuse_other_optimizer(
    content: Mapping[str, Any], path: str, optimizer: torch.optim.Optimizer
) -> None:
    """Raise a UserError if a checkpoint is of another optimizer, or of other groups of weights."""
    ours, theirs = optimizer.param_groups, content["optimizer_state"]["param_groups"]
    if [_shape_of(group) for group in ours] != [_shape_of(group) for group in theirs]:
        raise UserError(
            f"{_KEY}: {path!r} was written with another SOLVER.OPTIMIZING_METHOD, "
            "SOLVER.LAYER_DECAY or MODEL.FREEZE_LAYERS than the one configured. Try those it was "
            "trained with (config.yaml), another OUTPUT_DIR, or TRAIN.CHECKPOINT_FILE_PATH to "
            "start from it."
        )


def set_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer what another of its kind had gathered; its settings stay its own."""
    ours = optimizer.param_groups
    configured = [{name: group[name] for name in group if name != "params"} for group in ours]
    optimizer.load_state_dict(state)
    share_out(optimizer)
    for group, settings in zip(optimizer.param_groups, configured, strict=True):
        group.update(settings)


def _shape_of(group: dict[str, Any]) -> tuple[object, ...]:
    """What has to be the same for one group's state to be another's: method, names and scale.

    The method shows in what it alone has; releases of PyTorch differ in its other settings.
    """
    return "betas" in group, group["names"], group["lr_scale"]
