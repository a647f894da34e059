"""Read distributed checkpoints (torch.distributed.checkpoint) as plain types and tensors.

A folder `*.dcp` holds these files:

- `state.pyth`: everything except tensors.
- `__R_N.distcp`: the tensors that rank R wrote.
- `__R_sums.json`: the sizes and checksums of the files that rank R wrote.
- `.metadata`: the index, which says where each tensor is. It is renamed into place after all other
  files are on the disk, so a folder without it is half-written.

Tensors have flat names such as `model_state/head.norm.bias` and `optimizer_state/7/exp_avg`.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from hiera_video.checkpoints.distributed_layout import INDEX as INDEX
from hiera_video.checkpoints.distributed_layout import PLAIN as PLAIN
from hiera_video.checkpoints.distributed_layout import check_sums
from hiera_video.utils import io
from hiera_video.utils.errors import UserError, first_line
from hiera_video.utils.torch_files import load_plain

T = TypeVar("T")

ENDING = ".dcp"
MODEL, AVERAGE, OPTIMIZER = "model_state", "ema_state", "optimizer_state"


def is_folder(path: str) -> bool:
    """Return whether `path` is the folder of a distributed checkpoint, complete or half-written."""
    return path.rstrip("/").endswith(ENDING) and io.is_dir(path)


def is_complete(path: str) -> bool:
    """Return whether a distributed checkpoint was written completely."""
    return io.is_file(os.path.join(path, INDEX))


def flatten(content: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split a run's checkpoint into its tensors, by flat name, and everything else."""
    tensors: dict[str, torch.Tensor] = {}
    rest = dict(content)
    for part in (MODEL, AVERAGE):
        for name, value in rest.pop(part, {}).items():
            tensors[f"{part}/{name}"] = value
    states: dict[int, dict[str, Any]] = {}
    for number, state in rest[OPTIMIZER]["state"].items():
        states[number] = {}
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{OPTIMIZER}/{number}/{name}"] = value
            else:
                states[number][name] = value
    return tensors, rest | {OPTIMIZER: {**rest[OPTIMIZER], "state": states}}


def join(tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `flatten`; `tensors` may be only some of the tensors."""
    content = dict(rest)
    states = {number: dict(state) for number, state in rest[OPTIMIZER]["state"].items()}
    for flat, value in tensors.items():
        part, name = flat.split("/", maxsplit=1)
        if part == OPTIMIZER:
            number, name = name.split("/", maxsplit=1)
            states[int(number)][name] = value
        else:
            content.setdefault(part, {})[name] = value
    return content | {OPTIMIZER: {**rest[OPTIMIZER], "state": states}}


def read_plain(path: str, *, key: str) -> dict[str, Any]:
    """Read a distributed checkpoint without its tensors.

    `key` is the config key that the path came from, here and in the other functions.

    Raises:
        UserError: the checkpoint is half-written or damaged.
    """
    if not is_complete(path):
        raise UserError(
            f"{key}: {path!r} is half-written: the run ended, or the disk was full, before all of "
            "it was there. Try an older checkpoint."
        )
    file = os.path.join(path, PLAIN)
    content = _or_damaged(path, key, lambda: load_plain(file))
    if not isinstance(content, dict):
        raise UserError(f"{key}: {path!r} is no checkpoint of a run.")
    return content


def read(path: str, *, key: str, optimizer: bool) -> dict[str, Any]:
    """Read a distributed checkpoint into full tensors, in the layout of a checkpoint file.

    Each process can call this alone. If `optimizer` is False, the optimizer's tensors are left out.

    Raises:
        UserError: the checkpoint is half-written or damaged.
    """
    rest = read_plain(path, key=key)
    tensors: dict[str, torch.Tensor] = {
        name: torch.empty(like.shape, dtype=like.dtype)
        for name, like in shapes(path, key=key).items()
        if optimizer or not name.startswith(f"{OPTIMIZER}/")
    }
    _or_damaged(path, key, lambda: load(path, tensors, alone=True))
    return _or_damaged(path, key, lambda: join(tensors, rest))


def read_shapes(path: str, *, key: str) -> dict[str, Any]:
    """Read a distributed checkpoint in the layout of a file, with tensors on the meta device.

    Raises:
        UserError: the checkpoint is half-written or damaged. All files are checked.
    """
    rest, tensors = read_plain(path, key=key), shapes(path, key=key)
    return _or_damaged(path, key, lambda: join(tensors, rest))


def shapes(path: str, *, key: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a distributed checkpoint by flat name, on the meta device.

    Raises:
        UserError: the checkpoint is damaged. All files are checked.
    """
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    from hiera_video.checkpoints.distributed_storage import read_index

    def look() -> dict[str, torch.Tensor]:
        index = read_index(os.path.join(path, INDEX))
        names = {str(entry.relative_path) for entry in index.storage_data.values()}
        check_sums(path, names | {PLAIN})
        return {
            name: torch.empty(like.size, dtype=like.properties.dtype, device="meta")
            for name, like in index.state_dict_metadata.items()
            if not isinstance(like, BytesStorageMetadata)
        }

    return _or_damaged(path, key, look)


def load(path: str, tensors: dict[str, torch.Tensor], *, alone: bool = False) -> None:
    """Load tensors in place from a distributed checkpoint, by flat name; DTensors are allowed.

    All processes must call this together, unless `alone` is set: then each reads for itself.
    """
    from hiera_video.checkpoints.distributed_storage import load_tensors

    load_tensors(path, tensors, alone=alone)


def _or_damaged(path: str, key: str, read_it: Callable[[], T]) -> T:
    try:
        return read_it()
    except UserError:
        raise
    except PermissionError:
        raise UserError(f"{key}: {path!r} may not be read (no permission).") from None
    except Exception as error:  # a damaged file makes the readers raise anything
        reason = first_line(error)
        raise UserError(
            f"{key}: {path!r} is damaged ({reason}). Try copying it again, or an older one."
        ) from None
