"""Weights from a checkpoint file into a model, with an account of what was loaded."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import log, prod
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.decoder_heads import compare_heads, heads_there
from hiera_video.checkpoints.misfits import find_misfits
from hiera_video.checkpoints.positions import resize_positions
from hiera_video.checkpoints.unwrap import refuse_odd_content, shown, unwrap
from hiera_video.utils import cache, io
from hiera_video.utils.errors import UserError, first_line
from hiera_video.utils.lookup import closest
from hiera_video.utils.torch_files import load_plain

# What an autoencoder has and a classifier has not, by the beginning of its keys.
_DECODER_KEYS = ("decoder_", "mask_token", "encoder_norm", "multi_scale_fusion_heads")
# Where the authors keep their weights.
HIERA_URL = "https://dl.fbaipublicfiles.com/hiera/"
# The environment variable that names a folder with copies of these files.
WEIGHTS_FOLDER = "HIERA_VIDEO_WEIGHTS"


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """What came of loading, as keys of the state dict.

    `reinitialised` differ in their number of classes, `missing` are the model's and not the file's
    (both keep their fresh values), `unused` are the file's and not the model's. `interpolated`, of
    those loaded, are position embeddings of another resolution or number of frames. `notes` say in
    words what else there is to know, `unwrapped` how the weights were found in a file that another
    program wrote, `warnings` what may make the model's outputs wrong.
    """

    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    interpolated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unwrapped: str = ""
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for what, names in (
            ("interpolated to another number of positions", self.interpolated),
            ("re-initialised for another number of classes", self.reinitialised),
            ("not in the file and freshly initialised", self.missing),
            ("of the file not used", self.unused),
        ):
            if names:
                parts.append(f"{len(names)} {what} ({some(names)})")
        return "; ".join(filter(None, [", ".join(parts), self.unwrapped, *self.notes]))


def warn(summary: LoadSummary, path: str) -> None:
    """Log as warnings what was unwrapped in the file `path`, and the warnings of its summary."""
    for message in filter(None, [summary.unwrapped, *summary.warnings]):
        logging.getLogger("hiera_video").warning("warning: %s: %s", path, message)


def some(names: tuple[str, ...]) -> str:
    """Name the first four of `names`, and how many more there are."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(shown, names[:4])) + more


def copy_of_published(path: str) -> str | None:
    """Return the path of our copy of a file of the authors', or None.

    `path` is their URL; the copy is in the folder that HIERA_VIDEO_WEIGHTS names, and may be a
    .safetensors.

    Raises:
        UserError: HIERA_VIDEO_WEIGHTS names no folder.
    """
    folder = os.environ.get(WEIGHTS_FOLDER, "")
    if not folder or not path.startswith(HIERA_URL):
        return None
    file = path.removeprefix(HIERA_URL)
    if not io.is_dir(folder):
        raise UserError(
            f"{WEIGHTS_FOLDER} must be a folder that holds {file}, got {folder!r}, which is none. "
            "Try making it, or unset the variable to download."
        )
    names = (file, f"{os.path.splitext(file)[0]}.safetensors")
    copies = (os.path.join(folder, name) for name in names)
    return next((copy for copy in copies if io.is_file(copy)), None)


def fetch(path: str, *, key: str) -> str:
    """Return a path on this machine for a file or URL; `key` is the config key that named it.

    The licence of the authors' weights is told before they are downloaded.

    Raises:
        UserError: the download failed; it says what to download by hand and where to put it.
    """
    advice = "giving the path of the file"
    if path.startswith(HIERA_URL):
        folder = os.environ.get(WEIGHTS_FOLDER, "")
        into = f"{folder!r}" if folder else f"a folder, and export {WEIGHTS_FOLDER}=that_folder"
        advice = f"putting it into {into}"
        if not io.is_file(cache.cached_path(path)):
            logging.getLogger("hiera_video").warning(
                "downloading %s: the published weights are licensed under CC-BY-NC 4.0 (no "
                "commercial use), which is not this project's licence",
                path,
            )
    try:
        return io.local_path(path)
    except Exception as error:  # whatever the handler of the URL raises
        reason = first_line(error)
        raise UserError(
            f"{key}: {path!r} could not be fetched ({reason}). Try downloading it by hand and "
            f"{advice}."
        ) from None


def read_checkpoint(path: str, *, key: str) -> dict[str, Any]:
    """Read a checkpoint file or URL into plain types; `key` is the config key that named it.

    A URL of the authors' is not asked where `copy_of_published` finds the file. Only plain types
    and tensors are unpickled, so a file cannot run code. A sharded checkpoint (a folder *.dcp) is
    read like a file, but for what the optimizer had gathered.

    Raises:
        UserError: there is no such file, or it is no checkpoint.
    """
    if copy := copy_of_published(path):
        logging.getLogger("hiera_video").info("%s is read from %s", path, copy)
        path = copy
    here = fetch(path, key=key)
    if not io.exists(here):
        folder, name = os.path.split(here)
        beside = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        raise UserError(
            f"{key} must be a checkpoint file, got {path!r}, which does not exist."
            f"{closest(name, beside)}"
        )
    if distributed.is_folder(here):
        return distributed.read(here, key=key, optimizer=False)
    if io.is_dir(here):
        raise UserError(
            f"{key} must be a checkpoint file, got the folder {path!r}.{_hint_inside(here)}"
        )
    try:
        content = _read(here)
    except PermissionError:
        raise UserError(f"{key}: {path!r} may not be read (no permission).") from None
    except Exception as error:  # a damaged file makes the readers raise anything
        if io.is_url(path):  # a login page, say: not to be found in the cache the next time
            io.forget_download(path)
        raise UserError(
            f"{key}: {path!r} is not a readable checkpoint: it is cut short, of another kind, or "
            f"holds more than tensors and plain types{_reason(error)}. Try copying it again, or an "
            "older one."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{key}: {path!r} holds a {type(content).__name__}, not a checkpoint.")
    refuse_odd_content(content, path, key=key)
    return content


def _reason(error: Exception) -> str:
    """Name the class that PyTorch refused to unpickle, or what is odd about the file, if known."""
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        return f" ({refused[1]})"
    return f" ({error})" if type(error) is ValueError and str(error).startswith("its ") else ""


def _read(path: str) -> Any:
    if path.endswith(".safetensors"):
        return {"model_state": load_file(path)}
    return load_plain(path)


def _hint_inside(folder: str) -> str:
    """Name the best checkpoint of a run's folder, or its last one."""
    for inside in (os.path.join(folder, "checkpoints"), folder):
        with suppress(OSError):
            names = sorted(n for n in os.listdir(inside) if n.startswith("checkpoint_"))
            if names:
                best = "checkpoint_best.pyth"
                return f" Try {os.path.join(inside, best if best in names else names[-1])}."
    return ""


def model_state(
    content: Mapping[str, Any], model: nn.Module | None = None
) -> dict[str, torch.Tensor]:
    """Return the state dict of a checkpoint, which may be one itself, without what wraps it.

    It is found by the names of `model` (None: any Hiera); see `unwrap`. If a run averaged its
    weights, the average is returned.
    """
    return unwrap(content, model.state_dict() if model is not None else None).state


def load_weights(model: nn.Module, path: str, *, key: str) -> LoadSummary:
    """Load a checkpoint that has to fit `model` to the last tensor, as a test wants.

    Position embeddings of another resolution or number of frames are interpolated.

    Raises:
        UserError: the file is missing or no checkpoint, or it is one of another model.
    """
    return load_content(model, read_checkpoint(path, key=key), path=path, key=key)


def load_content(
    model: nn.Module, content: Mapping[str, Any], *, path: str, key: str
) -> LoadSummary:
    """Do what `load_weights` does with what `read_checkpoint` returned for `path`."""
    found = unwrap(content, model.state_dict())
    theirs, interpolated = resize_positions(found.state, model)
    load_state(model, theirs, path=path, key=key)
    return LoadSummary(
        loaded=tuple(model.state_dict()),
        interpolated=interpolated,
        notes=(found.average,) * bool(found.average),
        unwrapped=found.how,
        warnings=compare_heads(model, heads_there(content, path)),
    )


def load_state(model: nn.Module, theirs: dict[str, torch.Tensor], *, path: str, key: str) -> None:
    """Load a state dict that has to fit as it is; `path` and `key` are for the message.

    Raises:
        UserError: it is one of another model, or of another resolution, or it holds numbers of
            another kind or NaN; nothing was loaded.
    """
    refuse_other_state(model, theirs, path=path, key=key)
    model.load_state_dict(theirs)


def refuse_other_state(
    model: nn.Module, theirs: Mapping[str, torch.Tensor], *, path: str, key: str
) -> None:
    """Raise a UserError if `load_state` would; tensors may be on the meta device."""
    find_misfits(model, theirs).refuse(path, key=key)


def refuse_misfits(model: nn.Module, content: Mapping[str, Any], *, path: str, key: str) -> None:
    """Raise a UserError if `load_content` would; `model` may be on the meta device."""
    theirs, _ = resize_positions(model_state(content, model), model)
    refuse_other_state(model, theirs, path=path, key=key)


def start_from_weights(
    model: nn.Module, path: str, *, key: str, num_classes: int | None
) -> LoadSummary:
    """Load a checkpoint to train on from, pretrained or of another set of classes.

    The body has to fit, but for position embeddings, which are interpolated. The last layer (norm
    and classifier) keeps its fresh values where the file lacks it, as an autoencoder's does, or has
    another number of classes than `num_classes` (None: the model has none); what else the file
    holds, such as a decoder, is not used. The summary tells all of it.

    Raises:
        UserError: the file is missing or no checkpoint, or it is one of another model.
    """
    content = read_checkpoint(path, key=key)
    return start_from_content(model, content, path=path, key=key, num_classes=num_classes)


def start_from_content(
    model: nn.Module,
    content: Mapping[str, Any],
    *,
    path: str,
    key: str,
    num_classes: int | None,
) -> LoadSummary:
    """Do what `start_from_weights` does with what `read_checkpoint` returned for `path`."""
    found = unwrap(content, model.state_dict())
    summary = _start_from_state(model, found.state, path=path, key=key, num_classes=num_classes)
    warnings = (
        compare_heads(model, heads_there(content, path)) if "mask_token" in found.state else ()
    )
    notes = (*summary.notes, *((found.average,) * bool(found.average)))
    return replace(summary, notes=notes, unwrapped=found.how, warnings=warnings)


def _start_from_state(
    model: nn.Module,
    state: dict[str, torch.Tensor],
    *,
    path: str,
    key: str,
    num_classes: int | None,
) -> LoadSummary:
    theirs, interpolated = resize_positions(state, model)
    ours = model.state_dict()
    last_layer = _last_layer(model, ours)
    missing = {name for name in last_layer if name not in theirs}
    other_classes = {
        name
        for name in (last_layer or ours)
        if name in theirs and _differs_in_classes(ours[name].shape, theirs[name].shape, num_classes)
    }
    fitting = [name for name in ours if name not in missing | other_classes]
    find_misfits(model, theirs, fitting).refuse_to_start(path, key=key)
    model.load_state_dict({name: theirs[name] for name in fitting}, strict=False)
    return LoadSummary(
        loaded=tuple(fitting),
        reinitialised=tuple(name for name in ours if name in other_classes),
        missing=tuple(name for name in ours if name in missing),
        unused=tuple(name for name in theirs if name not in ours),
        interpolated=interpolated,
        notes=_notes_on_pretraining(model, state),
    )


def _notes_on_pretraining(model: nn.Module, state: dict[str, torch.Tensor]) -> tuple[str, ...]:
    """Say what becomes of an autoencoder's weights in a model without a decoder."""
    decoder = [name for name in state if name.startswith(_DECODER_KEYS)]
    if not decoder or "mask_token" in model.state_dict():
        return ()
    notes = [f"the autoencoder's decoder was dropped ({len(decoder)} tensors)"]
    here = getattr(model, "q_pool", None)
    if here is not None and _pooled(state, getattr(model, "q_stride", ())) == here - 1:
        notes.append(
            f"the last stage change pools here (q_pool {here}) and did not in pretraining (q_pool "
            f"{here - 1}), which changes no weight"
        )
    return tuple(notes)


def _pooled(state: dict[str, torch.Tensor], q_stride: Sequence[int]) -> int | None:
    """Return an autoencoder's q_pool: its decoder has a position for each token then left."""
    positions = {name: value.shape[1] for name, value in state.items() if value.dim() == 3}
    body = prod(count for name, count in positions.items() if name.startswith("pos_embed"))
    decoder = positions.get("decoder_pos_embed", 0)
    if not body or not decoder or prod(q_stride) < 2:
        return None
    return round(log(body / decoder, prod(q_stride)))


def _last_layer(model: nn.Module, names: Iterable[str]) -> list[str]:
    # A model that does not say where its layers are has no layer that may be missing.
    layer_index: Callable[[str], int] | None = getattr(model, "layer_index", None)
    last = getattr(model, "num_layers", 0) - 1
    return [name for name in names if layer_index is not None and layer_index(name) == last]


def _differs_in_classes(own: torch.Size, other: torch.Size, num_classes: int | None) -> bool:
    return own != other and own[:1] == (num_classes,) and own[1:] == other[1:]
