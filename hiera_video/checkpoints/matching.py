"""Load weights from a checkpoint file into a model, and summarise what was loaded."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log, prod
from typing import Any, NamedTuple

import torch
from torch import nn

from hiera_video.checkpoints.decoder_heads import compare_heads, heads_there
from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.checkpoints.layouts import convert
from hiera_video.checkpoints.misfits import find_misfits
from hiera_video.checkpoints.positions import resize_positions
from hiera_video.checkpoints.unwrap import shown, unwrap

# Prefixes of the keys that only an autoencoder has.
_DECODER_KEYS = ("decoder_", "mask_token", "encoder_norm", "multi_scale_fusion_heads")


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """The result of loading a checkpoint, as keys of the state dict.

    Attributes:
        loaded: keys whose values come from the file.
        reinitialised: keys that differ in their number of classes; they keep their initial values.
        missing: keys that only the model has; they keep their initial values.
        unused: keys that only the file has.
        interpolated: loaded position embeddings of another resolution or number of frames.
        notes: other facts about the weights, as text.
        unwrapped: how the weights were found in a file that another program wrote.
        warnings: what may make the outputs of the model wrong.
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
    """Log the warnings of a summary, and how the weights in the file `path` were unwrapped."""
    for message in filter(None, [summary.unwrapped, *summary.warnings]):
        logging.getLogger("hiera_video").warning("warning: %s: %s", path, message)


def some(names: tuple[str, ...]) -> str:
    """Format the first four of `names` and the number of the others."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(shown, names[:4])) + more


def load_weights(
    model: nn.Module,
    path: str,
    *,
    key: str = "checkpoint",
    content: Mapping[str, Any] | None = None,
) -> LoadSummary:
    """Load a checkpoint into `model`; every tensor has to fit.

    Position embeddings of another resolution or number of frames are interpolated.

    Args:
        model: the model, whose tensors are overwritten in place.
        path: a file, a folder *.dcp or a URL.
        key: what messages call the path: the config key or argument that named it.
        content: what `read_checkpoint` returned for `path`, if it has been read already.

    Raises:
        UserError: the file is missing, is no checkpoint, or is one of another model. Nothing was
            loaded.
    """
    content = read_checkpoint(path, key=key) if content is None else content
    found = _fit(model, content)
    load_state(model, found.state, path=path, key=key)
    return LoadSummary(
        loaded=tuple(model.state_dict()),
        interpolated=found.interpolated,
        notes=found.notes,
        unwrapped=found.how,
        warnings=compare_heads(model, heads_there(content, path)),
    )


def load_state(model: nn.Module, theirs: dict[str, torch.Tensor], *, path: str, key: str) -> None:
    """Load a state dict that has to fit without changes; a message names `path` and `key`.

    Raises:
        UserError: the state dict is one of another model or resolution, or it has values of another
            kind of dtype, infinite values or NaN. Nothing was loaded.
    """
    find_misfits(model, theirs).refuse(path, key=key)
    model.load_state_dict(theirs)


def refuse_misfits(model: nn.Module, content: Mapping[str, Any], *, path: str, key: str) -> None:
    """Raise a UserError if `load_weights` would; `model` may be on the meta device."""
    find_misfits(model, _fit(model, content).state).refuse(path, key=key)


def start_from_weights(
    model: nn.Module,
    path: str,
    *,
    key: str = "checkpoint",
    num_classes: int | None = None,
    content: Mapping[str, Any] | None = None,
) -> LoadSummary:
    """Load a checkpoint into `model` as the start of a training, and report what was loaded.

    The encoder has to fit; its position embeddings are interpolated if needed. The last layer (norm
    and classifier) keeps its initial values if the file lacks it, as an autoencoder's file does, or
    if the file has another number of classes. Other tensors of the file, such as a decoder's, are
    not used.

    Args:
        model: the model, whose tensors are overwritten in place.
        path: a file, a folder *.dcp or a URL.
        key: what messages call the path: the config key or argument that named it.
        num_classes: the model's classes. None: those of its `head.projection`, if it has one.
        content: what `read_checkpoint` returned for `path`, if it has been read already.

    Raises:
        UserError: the file is missing, is no checkpoint, or is one of another model. Nothing was
            loaded.
    """
    content = read_checkpoint(path, key=key) if content is None else content
    found, fitting, missing, other_classes = _start(
        model, content, path, key=key, num_classes=num_classes
    )
    ours, theirs = model.state_dict(), found.state
    model.load_state_dict({name: theirs[name] for name in fitting}, strict=False)
    heads = heads_there(content, path)
    return LoadSummary(
        loaded=tuple(fitting),
        reinitialised=tuple(name for name in ours if name in other_classes),
        missing=tuple(name for name in ours if name in missing),
        unused=tuple(name for name in theirs if name not in ours),
        interpolated=found.interpolated,
        notes=(*_notes_on_pretraining(model, found.original), *found.notes),
        unwrapped=found.how,
        warnings=compare_heads(model, heads) if "mask_token" in theirs else (),
    )


def refuse_start(
    model: nn.Module,
    content: Mapping[str, Any],
    *,
    path: str,
    key: str,
    num_classes: int | None = None,
) -> None:
    """Raise a UserError if `start_from_weights` would; `model` may be on the meta device."""
    _start(model, content, path, key=key, num_classes=num_classes)


def _start(
    model: nn.Module, content: Mapping[str, Any], path: str, *, key: str, num_classes: int | None
) -> "tuple[_Fitted, list[str], set[str], set[str]]":
    """Return the weights to start from, and the names that fit, are missing, or differ in classes.

    Raises:
        UserError: they are those of another model.
    """
    if num_classes is None:
        num_classes = num_classes_of(model)
    found = _fit(model, content)
    ours, theirs = model.state_dict(), found.state
    last_layer = _last_layer(model, ours)
    missing = {name for name in last_layer if name not in theirs}
    other_classes = {
        name
        for name in (last_layer or ours)
        if name in theirs
        and ours[name].shape != theirs[name].shape
        and ours[name].shape[:1] == (num_classes,)
        and ours[name].shape[1:] == theirs[name].shape[1:]
    }
    fitting = [name for name in ours if name not in missing | other_classes]
    find_misfits(model, theirs, fitting).refuse_to_start(path, key=key)
    return found, fitting, missing, other_classes


def num_classes_of(model: nn.Module) -> int | None:
    """Return the number of outputs of a model's classifier, None if it has no `head.projection`."""
    found: object = getattr(getattr(model, "head", None), "projection", None)
    return getattr(found, "out_features", None)


class _Fitted(NamedTuple):
    """A checkpoint's state dict with the model's names and numbers of positions.

    `original` has the file's numbers of positions; `notes` and `how` are those of `LoadSummary`.
    """

    state: dict[str, torch.Tensor]
    interpolated: tuple[str, ...]
    original: dict[str, torch.Tensor]
    notes: tuple[str, ...]
    how: str


def _fit(model: nn.Module, content: Mapping[str, Any]) -> _Fitted:
    """Find the weights in `content` and resize their position embeddings for `model`."""
    names = model.state_dict()
    converted = convert(content, names)
    if converted is not None:
        content = converted.state
    original, how, average = unwrap(content, names)
    state, interpolated = resize_positions(original, model)
    notes = (average,) * bool(average) + ((converted.note,) if converted else ())
    return _Fitted(state, interpolated, original, notes, how)


def _notes_on_pretraining(model: nn.Module, state: dict[str, torch.Tensor]) -> tuple[str, ...]:
    """Describe how an autoencoder's weights are used in a model without a decoder."""
    decoder = [name for name in state if name.startswith(_DECODER_KEYS)]
    if not decoder or "mask_token" in model.state_dict():
        return ()
    notes = [f"the autoencoder's decoder was dropped ({len(decoder)} tensors)"]
    here = getattr(model, "q_pool", None)
    if here is not None and _pooled(state, getattr(model, "q_stride", ())) == here - 1:
        notes.append(
            f"this model pools its tokens once more than the autoencoder did (q_pool {here}, not "
            f"q_pool {here - 1}); pooling has no weights, so there is nothing to do"
        )
    return tuple(notes)


def _pooled(state: dict[str, torch.Tensor], q_stride: Sequence[int]) -> int | None:
    """Return an autoencoder's q_pool, from its numbers of encoder and decoder positions."""
    positions = {name: value.shape[1] for name, value in state.items() if value.dim() == 3}
    body = prod(count for name, count in positions.items() if name.startswith("pos_embed"))
    decoder = positions.get("decoder_pos_embed", 0)
    if not body or not decoder or prod(q_stride) < 2:
        return None
    return round(log(body / decoder, prod(q_stride)))


def _last_layer(model: nn.Module, names: Iterable[str]) -> list[str]:
    # A model without `layer_index` has no layer that may be missing.
    layer_index: Callable[[str], int] | None = getattr(model, "layer_index", None)
    last = getattr(model, "num_layers", 0) - 1
    return [name for name in names if layer_index is not None and layer_index(name) == last]
