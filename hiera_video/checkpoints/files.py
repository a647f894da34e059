"""Find or download checkpoint files, and read them into plain types."""

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

# The URL of the authors' weights.
HIERA_URL = "https://dl.fbaipublicfiles.com/hiera/"
# The environment variable for a folder with copies of these files.
WEIGHTS_FOLDER = "HIERA_VIDEO_WEIGHTS"


def copy_of_published(path: str) -> str | None:
    """Return the path of the local copy of one of the authors' files, or None.

    `path` is the URL of the file. The copy is in the folder HIERA_VIDEO_WEIGHTS, under the same
    name or with the ending .safetensors.

    Raises:
        UserError: HIERA_VIDEO_WEIGHTS is set, but is no folder.
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
    """Download a URL to the cache; return the local path of the file or URL.

    `key` is the config key that the path came from. Before it downloads the authors' weights, this
    function logs their licence.

    Raises:
        UserError: the download failed. The message says what to download by hand and where to put
            it.
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
    except Exception as error:  # a URL handler may raise anything
        reason = first_line(error)
        raise UserError(
            f"{key}: {path!r} could not be fetched ({reason}). Try downloading it by hand and "
            f"{advice}."
        ) from None


def read_checkpoint(path: str, *, key: str, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint file or URL into plain types.

    Only plain types and tensors are unpickled, so a file cannot run code. If `copy_of_published`
    finds a local copy of the authors' file, it is read instead of the URL. A distributed checkpoint
    (a folder *.dcp) is read like a file, but without the optimizer's tensors.

    Args:
        path: a file, a folder *.dcp or a URL.
        key: the config key that the path came from.
        mmap: memory-map the file, so its tensors are read from the disk only when used.

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
        is_safetensors = here.endswith(".safetensors")
        content: Any = (
            {"model_state": load_file(here)} if is_safetensors else load_plain(here, mmap=mmap)
        )
    except PermissionError:
        raise UserError(f"{key}: {path!r} may not be read (no permission).") from None
    except Exception as error:  # a damaged file makes the readers raise anything
        if io.is_url(path):  # may be a login page: do not keep it in the cache
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
    """Return the class that PyTorch refused to unpickle, or what is wrong with the file, or ""."""
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        return f" ({refused[1]})"
    return f" ({error})" if type(error) is ValueError and str(error).startswith("its ") else ""


def _hint_inside(folder: str) -> str:
    """Suggest the best checkpoint of a run's folder, or else the last one."""
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
    """Return the state dict in a checkpoint, without the prefixes that wrappers add.

    The search matches the names of `model` (None: of any Hiera); see `unwrap`. `content` may itself
    be a state dict. If the run averaged its weights, the average is returned.
    """
    return unwrap(content, model.state_dict() if model is not None else None).state
