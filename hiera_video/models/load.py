"""Load a model with its weights by name: the short way in from Python."""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from typing_extensions import Unpack

from hiera_video.checkpoints.decoder_heads import saved_heads
from hiera_video.checkpoints.files import model_state
from hiera_video.checkpoints.hub import CLASSES, class_name, local_folder
from hiera_video.checkpoints.matching import LoadSummary, some
from hiera_video.checkpoints.published import load_published, read_published
from hiera_video.models.parts.hub_model import HubModel
from hiera_video.models.parts.settings import ModelSettings
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest, public_functions
from hiera_video.utils.text import printable


def load_model(
    name: str,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    verbose: bool = True,
    **settings: Unpack[ModelSettings],
) -> nn.Module:
    """Build the model `name` with weights, in evaluation mode, and print what was loaded.

    By default, a classifier gets the number of classes of the checkpoint, and an autoencoder gets
    the size of its decoder.

    Args:
        name: a model function, such as "hiera_base_16x224" or "mae_hiera_base_16x224".
        checkpoint: a published name such as "mae_k400", a path or a URL. A run's own checkpoint
            works too. None: the default of the model.
        verbose: print what was loaded.
        settings: keyword arguments of the model function.

    Raises:
        UserError: there is no such model or checkpoint, or the checkpoint does not fit the model.
    """
    _find_model(name)  # before anything is downloaded
    path, content = read_published(name, checkpoint)
    model, summary = build_with_weights(name, path, content, settings)
    if verbose:
        lines = [f"{name} from {path}", *describe(summary)]
        print(printable("\n".join(lines), keep="\n"))
    return model.eval()


def build_with_weights(
    name: str, path: str, content: dict[str, Any], settings: Mapping[str, Any]
) -> tuple[nn.Module, LoadSummary]:
    """Build the model `name` for a checkpoint, load it, and return model and summary.

    `path` and `content` are the results of `read_published`. `settings` override the settings that
    the checkpoint implies.

    Raises:
        UserError: there is no such model, or the checkpoint is one of another model.
    """
    implied = _decoder(content) if name.startswith("mae_") else _classes(content)
    model = _find_model(name)(**{**implied, **settings})
    return model, load_published(model, name, path, content=content)


def from_pretrained(
    where: str | os.PathLike[str], *, revision: str | None = None, **changes: Unpack[ModelSettings]
) -> HubModel:
    """Load the model of a folder or hub repository, of either class, in evaluation mode.

    See `HubModel.from_pretrained` for the arguments.

    Raises:
        UserError: there is no such model, or it is broken.
    """
    folder = local_folder(os.fspath(where), revision)
    name = class_name(folder)
    family = importlib.import_module(f"hiera_video.models.{CLASSES[name]}")
    model_class: type[HubModel] = getattr(family, name)
    return model_class.from_pretrained(folder, **changes)


def describe(summary: LoadSummary) -> list[str]:
    """Format a summary as lines: the number of keys of each kind, and the first names."""
    rows = [
        ("interpolated", summary.interpolated, "to another number of positions"),
        ("re-initialised", summary.reinitialised, "for another number of classes"),
        ("missing", summary.missing, "in the file, freshly initialised"),
        ("unexpected", summary.unused, "in the file, not used"),
    ]
    lines = [f"  {'loaded':15}{len(summary.loaded):5d}"]
    for what, names, more in rows:
        lines.append(f"  {what:15}{len(names):5d}" + (f"  {more}: {some(names)}" if names else ""))
    return lines + [f"  {note}" for note in (summary.unwrapped, *summary.notes) if note]


def _find_model(name: str) -> Callable[..., nn.Module]:
    models: dict[str, Callable[..., nn.Module]] = {}
    for module in ("hiera", "hiera_mae"):
        functions = public_functions(importlib.import_module(f"hiera_video.models.{module}"))
        models |= {known: make for known, make in functions.items() if "hiera_" in known}
        if name in models:
            return models[name]
    raise UserError(
        f"name must be a model ({', '.join(sorted(models))}), got {name!r}." + closest(name, models)
    )


def _classes(content: dict[str, Any]) -> dict[str, int]:
    head = model_state(content).get("head.projection.weight")
    return {} if head is None else {"num_classes": len(head)}


def _decoder(content: dict[str, Any]) -> dict[str, int]:
    """Return the settings of the decoder in a checkpoint, {} if it has none."""
    state = model_state(content)
    blocks = {name.split(".")[1] for name in state if name.startswith("decoder_blocks.")}
    if not blocks or "mask_token" not in state:
        return {}
    found = {"decoder_depth": len(blocks), "decoder_embed_dim": state["mask_token"].shape[-1]}
    heads = saved_heads(content)
    return found if heads is None else found | {"decoder_num_heads": heads}
