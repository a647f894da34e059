"""Weights from a checkpoint file into a model, with an account of what was loaded."""

import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hiera_video.utils import io
from hiera_video.utils.errors import UserError


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """What came of loading: the keys that were loaded, and those that start afresh."""

    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded"
        if self.reinitialised:
            text += (
                f", {len(self.reinitialised)} of another number of classes re-initialised: "
                + ", ".join(self.reinitialised)
            )
        return text


def read_checkpoint(path: str, *, key: str) -> dict[str, Any]:
    """Read a checkpoint file or URL into plain types; `key` is the config key that named it.

    Only plain types and tensors are unpickled, so a file cannot run code.

    Raises:
        UserError: there is no such file, or it is no checkpoint.
    """
    if not io.exists(path):
        raise UserError(f"{key} must be a checkpoint file, got {path!r}, which does not exist.")
    if io.is_dir(path):
        raise UserError(f"{key} must be a checkpoint file, got the folder {path!r}.")
    try:
        content = torch.load(io.local_path(path), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise UserError(
            f"{key}: {path!r} is not a readable checkpoint ({reason}). It may be cut short: try "
            "copying it again, or an older one."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{key}: {path!r} holds a {type(content).__name__}, not a checkpoint.")
    return content


def model_state(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the state dict of a checkpoint, which may be one itself."""
    state = content.get("model_state", content)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def load_weights(model: nn.Module, path: str, *, key: str, num_classes: int | None) -> LoadSummary:
    """Load a checkpoint into `model`.

    With `num_classes`, tensors that differ from the model's only in their number of classes keep
    their fresh values, as fine-tuning wants; with None everything has to fit.

    Raises:
        UserError: the file is missing or no checkpoint, or it is one of another model.
    """
    theirs = model_state(read_checkpoint(path, key=key))
    ours = model.state_dict()
    fresh = [name for name in ours if _differs_in_classes(ours, theirs, name, num_classes)]
    problems = _mismatches(ours, theirs, skip=set(fresh))
    if problems:
        shown = "; ".join(problems[:3]) + (
            f"; and {len(problems) - 3} more" if problems[3:] else ""
        )
        raise UserError(
            f"{key}: {path!r} is a checkpoint of another model than the one configured: {shown}. "
            "Try the MODEL and DATA keys it was trained with (config.yaml beside its folder)."
        )
    model.load_state_dict({n: t for n, t in theirs.items() if n not in fresh}, strict=False)
    return LoadSummary(tuple(n for n in ours if n not in fresh), tuple(fresh))


def _differs_in_classes(
    ours: dict[str, torch.Tensor],
    theirs: dict[str, torch.Tensor],
    name: str,
    num_classes: int | None,
) -> bool:
    if num_classes is None or name not in theirs or ours[name].ndim == 0:
        return False
    own, other = ours[name].shape, theirs[name].shape
    return own != other and own[0] == num_classes and own[1:] == other[1:]


def _mismatches(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], *, skip: set[str]
) -> list[str]:
    problems = []
    for name in ours:
        if name in skip:
            continue
        if name not in theirs:
            problems.append(f"{name} is missing")
        elif ours[name].shape != theirs[name].shape:
            problems.append(
                f"{name} is {tuple(theirs[name].shape)} there and {tuple(ours[name].shape)} here"
            )
    return problems + [f"{name} is unknown here" for name in theirs if name not in ours]
