"""Read and write model folders in the format of the Hugging Face hub.

A folder has `config.json` and `model.safetensors`. `config.json` holds only the arguments of the
class. So huggingface_hub's PyTorchModelHubMixin over the same class reads our folders, and this
module reads its folders. `hiera_video.json` holds other facts about the weights, such as the class
names and how clips are made. Reading a folder does not need huggingface_hub; reading a repository
does.
"""

import importlib
import inspect
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import nn

from hiera_video.checkpoints import matching
from hiera_video.checkpoints.decoder_heads import compare_heads
from hiera_video.checkpoints.facts import check_facts, check_settings
from hiera_video.checkpoints.files import model_state, read_checkpoint
from hiera_video.checkpoints.misfits import find_misfits
from hiera_video.checkpoints.unwrap import unwrap
from hiera_video.utils import disk, io
from hiera_video.utils.errors import UserError, first_line
from hiera_video.utils.read_json import parse_json

CONFIG, WEIGHTS, FACTS = "config.json", "model.safetensors", "hiera_video.json"
_KEY = "from_pretrained"  # the name in messages
# The classes that a folder may hold, and their modules in `models`.
CLASSES = {
    "Hiera": "hiera",
    "MaskedAutoencoderHiera": "hiera_mae",
    "ViT": "vit",
    "MaskedAutoencoderViT": "vit_mae",
    "MViT": "mvit",
    "MaskedAutoencoderMViT": "mvit_mae",
}
_CLASS = "model_class"  # in config.json, of other classes than Hiera's two

M = TypeVar("M", bound=nn.Module)


def read_model(
    model_class: type[M], where: str, revision: str | None, changes: Mapping[str, Any]
) -> M:
    """Build a `model_class` from a folder or repository; see `HubModel.from_pretrained`."""
    folder = local_folder(where, revision)
    settings = _read_json(os.path.join(folder, CONFIG))
    # A subclass, such as one from `hub_class`, counts as its base.
    if (theirs := _name_in(settings)) != _base(model_class):
        raise UserError(
            f"{_KEY}: {folder!r} must hold a {model_class.__name__}, got a {theirs}. Try "
            f"{theirs}.from_pretrained."
        )
    settings.pop(_CLASS, None)
    source = os.path.join(folder, CONFIG)
    check_settings(settings, model_class, source=f"{_KEY}: {source!r}")
    try:
        with torch.device("meta"):
            shell = model_class(**{**settings, **changes})
    except UserError:
        raise
    except Exception as error:  # a wrong value may fail anywhere in the constructor
        raise UserError(
            f"{_KEY}: the settings in {source!r} must be those of "
            f"{model_class.__name__}, got some that do not build one ({first_line(error)})."
        ) from None
    path = os.path.join(folder, WEIGHTS)
    content = read_checkpoint(path, key=_KEY)
    if not changes:  # check before allocating: a damaged config may ask for huge tensors
        state = model_state(content, shell)
        find_misfits(shell, state).refuse(path, key=_KEY)
    model = model_class(**{**settings, **changes})
    _load(model, content, path, settings, changed=bool(changes))
    return model.eval()


def write_model(model: nn.Module, folder: str, facts: Mapping[str, Any] | None) -> None:
    """Write a model to `folder`; see `HubModel.save_pretrained`."""
    check_facts(facts or {}, source="save_pretrained: facts")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    contents = {
        WEIGHTS: save(state, metadata={"format": "pt"}),
        CONFIG: to_json(all_settings(model) | _class_of(model)),
    }
    if facts is not None:
        contents[FACTS] = to_json(facts)
    try:
        io.make_dirs(folder)
        for name, content in contents.items():
            write_bytes(os.path.join(folder, name), content)
    except OSError as error:
        raise UserError(
            f"save_pretrained: {folder!r} must be a folder that can be written to "
            f"({error.strerror or error}). Try another one."
        ) from None


def class_name(folder: str) -> str:
    """Return the class name of the model in a folder that `local_folder` returned.

    Raises:
        UserError: its `config.json` is broken.
    """
    return _name_in(_read_json(os.path.join(folder, CONFIG)))


def read_facts(where: str | os.PathLike[str], *, revision: str | None = None) -> dict[str, Any]:
    """Read `hiera_video.json` of a folder or repository; return {} if there is none.

    Raises:
        UserError: there is no such folder, the file is broken, or a field has the wrong type.
    """
    path = os.path.join(local_folder(os.fspath(where), revision), FACTS)
    if not io.is_file(path):
        return {}
    facts = _read_json(path)
    check_facts(facts, source=f"{_KEY}: {path!r}")
    return facts


def is_pretrained_folder(path: str) -> bool:
    """Return whether `path` is a folder that `from_pretrained` can read."""
    return io.is_file(os.path.join(path, CONFIG)) and io.is_file(os.path.join(path, WEIGHTS))


def hub_class(model_class: type[nn.Module]) -> Any:
    """Return `model_class` combined with huggingface_hub's PyTorchModelHubMixin.

    The class gains `push_to_hub`; its `from_pretrained` and `save_pretrained` are
    huggingface_hub's.

    Raises:
        UserError: huggingface_hub is not installed.
    """
    mixin = _huggingface_hub("hub_class").PyTorchModelHubMixin
    return type(model_class.__name__, (mixin, model_class), {}, library_name="hiera_video")


def all_settings(model: nn.Module) -> dict[str, Any]:
    """Return the settings of a model, including the defaults.

    A saved model records the defaults too, so a later version with other defaults builds the same
    model.
    """
    settings: Any = model.settings
    return {**default_settings(type(model)), **settings}


def default_settings(model_class: type) -> dict[str, Any]:
    """Return the default settings of a class."""
    defaults: dict[str, Any] = {}
    for base in reversed(model_class.__mro__):
        if "__init__" in base.__dict__:
            parameters = inspect.signature(base.__dict__["__init__"]).parameters.values()
            keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
            defaults |= {p.name: p.default for p in keywords if p.default is not p.empty}
    return defaults


def local_folder(where: str, revision: str | None = None) -> str:
    """Return `where` if it is a folder; otherwise download the repository `where`.

    Raises:
        UserError: there is no such folder or repository, it lacks a file, or huggingface_hub is not
            installed.
    """
    if not io.is_dir(where):
        where = _download(where, revision)
    missing = [name for name in (CONFIG, WEIGHTS) if not io.is_file(os.path.join(where, name))]
    if missing:
        raise UserError(
            f"{_KEY} must be given a folder with {CONFIG} and {WEIGHTS}, got {where!r}, which has "
            f"no {' and no '.join(missing)}. Try tools/export.py --format safetensors, or "
            "load_model for a checkpoint."
        )
    return where


def write_bytes(path: str, content: bytes) -> None:
    """Write a file atomically; raises OSError."""
    disk.write_atomic(path, lambda file: file.write(content))


def to_json(content: Mapping[str, Any]) -> bytes:
    """Format `content` as indented JSON in UTF-8."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _download(where: str, revision: str | None) -> str:
    parts = where.split("/")
    if len(parts) != 2 or not all(parts) or parts[0].startswith(("~", ".")):
        raise UserError(
            f"{_KEY} must be given a folder or a repository's owner/name, got {where!r}, which is "
            "neither."
        )
    hub = _huggingface_hub(where)
    try:
        folder: str = hub.snapshot_download(
            where, revision=revision, allow_patterns=[CONFIG, WEIGHTS, FACTS]
        )
        return folder
    except Exception as error:  # the client may raise anything, for example without a network
        raise UserError(
            f"{_KEY}: {where!r} is no folder here, and could not be had from the hub "
            f"({first_line(error)}). Try the path of a folder."
        ) from None


def _huggingface_hub(wanted_for: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError(
            f"{_KEY} must be given a folder where huggingface_hub is not installed, got "
            f"{wanted_for!r} ({first_line(error)}). Try pip install -e '.[hub]'."
        ) from None


def _read_json(path: str) -> dict[str, Any]:
    try:
        with io.open_file(path) as file:
            content = parse_json(file.read())
    except (OSError, ValueError) as error:
        raise UserError(f"{_KEY}: {path!r} is not readable JSON ({first_line(error)}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{_KEY}: {path!r} must hold an object, got a {type(content).__name__}.")
    return content


def _name_in(settings: Mapping[str, Any]) -> str:
    """Return the class that settings are for: the one they name, if it is one of CLASSES."""
    if (named := settings.get(_CLASS)) in CLASSES:
        return str(named)
    return "MaskedAutoencoderHiera" if "decoder_embed_dim" in settings else "Hiera"


def _base(model_class: type) -> str:
    """Return the first of CLASSES that a class is or inherits from (see `hub_class`)."""
    return next((base.__name__ for base in model_class.__mro__ if base.__name__ in CLASSES), "")


def _class_of(model: nn.Module) -> dict[str, str]:
    name = _base(type(model))
    return {} if name in ("Hiera", "MaskedAutoencoderHiera") else {_CLASS: name}


def _load(
    model: nn.Module,
    content: Mapping[str, Any],
    path: str,
    settings: Mapping[str, Any],
    *,
    changed: bool,
) -> None:
    if not changed:
        state, how, _ = unwrap(content, model.state_dict())
        matching.load_state(model, state, path=path, key=_KEY)
        matching.warn(matching.LoadSummary(tuple(state), unwrapped=how), path)
        return
    summary = matching.start_from_weights(model, path, key=_KEY, content=content)
    logging.getLogger("hiera_video").info("%s: %s", path, summary)
    there = {**default_settings(type(model)), **settings}.get("decoder_num_heads")
    matching.warn(replace(summary, warnings=compare_heads(model, there)), path)
