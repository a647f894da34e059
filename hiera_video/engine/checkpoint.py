"""Checkpoints: written whole or not at all, read with weights_only, found again by their position.

`checkpoint_epoch_00010.pyth` stands after 10 finished epochs, `checkpoint_epoch_00010_iter_0000200`
200 iterations further on, `checkpoint_best.pyth` where the validation was best. Those of a run with
DIST.STRATEGY fsdp are folders, `checkpoint_epoch_00010.dcp` (engine/checkpoint_sharded.py).
"""

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import nn

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.matching import load_state, read_checkpoint
from hiera_video.config import Config, to_yaml
from hiera_video.data.class_names import contradiction
from hiera_video.engine.checkpoint_content import damage_in
from hiera_video.engine.sharding import share_out, whole
from hiera_video.utils import dist, io
from hiera_video.utils.byproducts import Warn, write_by_product
from hiera_video.utils.errors import UserError

BEST = "checkpoint_best.pyth"
_NAME = re.compile(r"checkpoint_epoch_(\d{5,})(?:_iter_(\d{7,}))?\.(pyth|dcp)")
_TEMPORARY = re.compile(r"\.checkpoint_.*\.tmp")
# Of those inside an epoch: the newest, and one more should that be broken.
_KEPT_INSIDE_EPOCHS = 2
_KEY = "TRAIN.AUTO_RESUME"


class Position(NamedTuple):
    """How far a run has come: finished epochs, and the iterations done of the next one."""

    epoch: int
    iteration: int = 0

    def __str__(self) -> str:
        if not self.iteration:
            return f"epoch {self.epoch}"
        return f"iteration {self.iteration} of epoch {self.epoch + 1}"


def checkpoint_folder(output_dir: str) -> str:
    """Return where a run's checkpoints stand."""
    return os.path.join(output_dir, "checkpoints")


def save_config(cfg: Config, warn: Warn) -> None:
    """Save the resolved config in OUTPUT_DIR: `config.yaml`, or `config_test.yaml` of a test alone.

    Called once the run's weights are loaded, so that a run that is refused for a checkpoint of
    another model leaves the config of the run before it. Rank 0 writes; a failure to is handed to
    `warn`.
    """
    if not dist.is_main():
        return
    name = "config.yaml" if cfg.TRAIN.ENABLE else "config_test.yaml"
    write_by_product(os.path.join(cfg.OUTPUT_DIR, name), to_yaml(cfg).encode(), warn)


def checkpoint_path(
    output_dir: str, epoch: int, iteration: int = 0, *, ending: str = ".pyth"
) -> str:
    """Return where the checkpoint after `epoch` finished epochs and `iteration` more stands."""
    inside = f"_iter_{iteration:07d}" if iteration else ""
    name = f"checkpoint_epoch_{epoch:05d}{inside}{ending}"
    return os.path.join(checkpoint_folder(output_dir), name)


def best_path(output_dir: str) -> str:
    """Return where the checkpoint of the best validation stands."""
    return os.path.join(checkpoint_folder(output_dir), BEST)


def saved(output_dir: str) -> list[tuple[Position, str]]:
    """Return position and path of the checkpoints in `output_dir`, the last one first.

    Half-written folders are among them.
    """
    folder = checkpoint_folder(output_dir)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [match for name in names if (match := _NAME.fullmatch(name))]
    found = [(Position(int(m[1]), int(m[2] or 0)), os.path.join(folder, m[0])) for m in matches]
    return sorted(found, reverse=True)


def positions(output_dir: str) -> list[Position]:
    """Return the positions of the checkpoints in `output_dir`, the last one first."""
    return list(dict.fromkeys(position for position, _ in saved(output_dir)))


def last_checkpoint(output_dir: str) -> str | None:
    """Return the checkpoint of the last position in `output_dir`, or None.

    Folders that are half-written do not count.
    """
    return next((path for _, path in saved(output_dir) if not _is_unfinished(path)), None)


def _is_unfinished(path: str) -> bool:
    return distributed.is_folder(path) and not distributed.is_complete(path)


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
        io.write_atomic(path, lambda file: torch.save(dict(content), file))
        io.flush_folder(folder)
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


def remove_old(output_dir: str, now: Position, *, keep: int) -> None:
    """Remove what a checkpoint at `now` has made superfluous.

    `keep` (0: all) are left of those after an epoch, and two of those inside one. What is of a
    later position than `now` (a broken file that was skipped, say) neither counts nor goes.
    """
    found = [(position, path) for position, path in saved(output_dir) if position <= now]
    unfinished = {path for _, path in found if _is_unfinished(path)}
    finished = list(dict.fromkeys(p for p, path in found if path not in unfinished))
    epochs = [position for position in finished if not position.iteration]
    kept = set(epochs[:keep] if keep else epochs)
    kept |= {position for position in finished[:_KEPT_INSIDE_EPOCHS] if position.iteration}
    for position, path in found:
        if position not in kept or path in unfinished:
            remove(path)


def remove(path: str) -> None:
    """Remove a checkpoint as far as that is possible; of a folder, first what makes it whole."""
    with suppress(OSError):  # gone already, or not ours to remove
        if not os.path.isdir(path):
            os.unlink(path)
            return
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(path, distributed.INDEX))
        shutil.rmtree(path)


def remove_unfinished(output_dir: str) -> None:
    """Remove what a run that was killed while it saved has left behind."""
    folder = checkpoint_folder(output_dir)
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if _TEMPORARY.fullmatch(name):
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))


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
            "another OUTPUT_DIR to start anew."
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
