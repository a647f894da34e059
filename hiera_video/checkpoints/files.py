"""Checkpoint files: find them here or download them, and read them into plain types."""

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.unwrap import refuse_odd_content, unwrap
from hiera_video.utils import cache, io
from hiera_video.utils.errors import UserError, first_line
from hiera_video.utils.lookup import closest
from hiera_video.utils.torch_files import load_plain

# Where the authors keep their weights.
HIERA_URL = "https://dl.fbaipublicfiles.com/hiera/"
# The environment variable that names a folder with copies of these files.
WEIGHTS_FOLDER = "HIERA_VIDEO_WEIGHTS"


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


def read_checkpoint(path: str, *, key: str, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint file or URL into plain types; `key` is the config key that named it.

    With `mmap`, the tensors of a file are read from the disk only when used.

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
        content = _read(here, mmap=mmap)
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


def _read(path: str, *, mmap: bool) -> Any:
    if path.endswith(".safetensors"):
        return {"model_state": load_file(path)}
    return load_plain(path, mmap=mmap)


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
