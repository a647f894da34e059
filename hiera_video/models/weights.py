"""Weights from a checkpoint file into a model, with an account of what was loaded."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hiera_video.utils import io
from hiera_video.utils.errors import UserError


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """What came of loading, as keys of the state dict.

    `reinitialised` differ in their number of classes, `missing` are the model's and not the file's
    (both keep their fresh values), `unused` are the file's and not the model's.
    """

    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for what, names in (
            ("re-initialised for another number of classes", self.reinitialised),
            ("not in the file and freshly initialised", self.missing),
            ("of the file not used", self.unused),
        ):
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                parts.append(f"{len(names)} {what} ({', '.join(names[:4])}{more})")
        return ", ".join(parts)


def read_checkpoint(path: str, *, key: str) -> dict[str, Any]:
    """Read a checkpoint file or URL into plain types; `key` is the config key that named it.

    Only plain types and tensors are unpickled, so a file cannot run code.

    Raises:
        UserError: there is no such file, or it is no checkpoint.
    """
    try:
        here = io.local_path(path)
    except Exception as error:  # whatever the handler of the URL raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{key}: {path!r} could not be fetched ({reason}). Try downloading it by hand and "
            "giving the path of the file."
        ) from None
    if not io.exists(here):
        raise UserError(f"{key} must be a checkpoint file, got {path!r}, which does not exist.")
    if io.is_dir(here):
        raise UserError(f"{key} must be a checkpoint file, got the folder {path!r}.")
    try:
        content = torch.load(here, map_location="cpu", weights_only=True)
    except PermissionError:
        raise UserError(f"{key}: {path!r} may not be read (no permission).") from None
    except Exception:  # a damaged file makes the unpickler raise anything
        raise UserError(
            f"{key}: {path!r} is not a readable checkpoint: it is cut short, of another kind, or "
            "holds more than tensors and plain types. Try copying it again, or an older one."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{key}: {path!r} holds a {type(content).__name__}, not a checkpoint.")
    if not isinstance(content.get("model_state", {}), dict):
        raise UserError(f"{key}: {path!r} has no state dict under 'model_state'.")
    return content


def model_state(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the state dict of a checkpoint, which may be one itself."""
    state = content.get("model_state", content)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def load_weights(model: nn.Module, path: str, *, key: str) -> LoadSummary:
    """Load a checkpoint that has to fit `model` to the last tensor, as a test wants.

    Raises:
        UserError: the file is missing or no checkpoint, or it is one of another model.
    """
    load_state(model, model_state(read_checkpoint(path, key=key)), path=path, key=key)
    return LoadSummary(loaded=tuple(model.state_dict()))


def load_state(model: nn.Module, theirs: dict[str, torch.Tensor], *, path: str, key: str) -> None:
    """Load a state dict that has to fit to the last tensor; `path` and `key` are for the message.

    Raises:
        UserError: it is one of another model; nothing was loaded.
    """
    refuse_misfits(model, theirs, path=path, key=key)
    model.load_state_dict(theirs)


def refuse_misfits(
    model: nn.Module, theirs: dict[str, torch.Tensor], *, path: str, key: str
) -> None:
    """Raise a UserError if a state dict is not one of `model`, which may be on the meta device."""
    ours = model.state_dict()
    unknown = [f"{name} is unknown here" for name in theirs if name not in ours]
    _refuse(path, key, [*_misfits(ours, theirs, ours), *unknown])


def start_from_weights(model: nn.Module, path: str, *, key: str, num_classes: int) -> LoadSummary:
    """Load a checkpoint to train on from, pretrained or of another set of classes.

    The body has to fit. The last layer (norm and classifier) keeps its fresh values where the file
    lacks it, as an autoencoder's does, or has another number of classes; what else the file holds,
    such as a decoder, is not used. The summary tells all of it.

    Raises:
        UserError: the file is missing or no checkpoint, or it is one of another model.
    """
    theirs = model_state(read_checkpoint(path, key=key))
    ours = model.state_dict()
    last_layer = _last_layer(model, ours)
    missing = {name for name in last_layer if name not in theirs}
    other_classes = {
        name
        for name in (last_layer or ours)
        if name in theirs and _differs_in_classes(ours[name].shape, theirs[name].shape, num_classes)
    }
    fitting = [name for name in ours if name not in missing | other_classes]
    _refuse(path, key, _misfits(ours, theirs, fitting))
    model.load_state_dict({name: theirs[name] for name in fitting}, strict=False)
    return LoadSummary(
        loaded=tuple(fitting),
        reinitialised=tuple(name for name in ours if name in other_classes),
        missing=tuple(name for name in ours if name in missing),
        unused=tuple(name for name in theirs if name not in ours),
    )


def _last_layer(model: nn.Module, names: Iterable[str]) -> list[str]:
    # A model that does not say where its layers are has no layer that may be missing.
    layer_index: Callable[[str], int] | None = getattr(model, "layer_index", None)
    last = getattr(model, "num_layers", 0) - 1
    return [name for name in names if layer_index is not None and layer_index(name) == last]


def _differs_in_classes(own: torch.Size, other: torch.Size, num_classes: int) -> bool:
    return own != other and own[:1] == (num_classes,) and own[1:] == other[1:]


def _misfits(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], names: Iterable[str]
) -> list[str]:
    problems = []
    for name in names:
        if name not in theirs:
            problems.append(f"{name} is missing")
        elif ours[name].shape != theirs[name].shape:
            problems.append(
                f"{name} is {tuple(theirs[name].shape)} there and {tuple(ours[name].shape)} here"
            )
    return problems


def _refuse(path: str, key: str, problems: list[str]) -> None:
    if not problems:
        return
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    raise UserError(
        f"{key}: {path!r} is a checkpoint of another model than the one configured: "
        f"{'; '.join(problems[:3])}{more}. Try the MODEL and DATA keys it was trained with "
        "(config.yaml in its OUTPUT_DIR)."
    )
