"""Storage for torch.distributed.checkpoint with checksums and an index that cannot run code.

Importing this module takes seconds, so `checkpoints/distributed.py` imports it only when it reads.
"""

import os
import pickle
import warnings
from inspect import signature
from typing import Any, cast

import torch
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, Metadata, load
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from hiera_video.checkpoints.distributed_layout import INDEX, PLAIN, write_sums
from hiera_video.utils import disk, dist, io
from hiera_video.utils.errors import UserError

# The classes and functions that the index of a checkpoint of tensors may name.
_PLAIN_CLASSES = {
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {_StorageInfo.__name__},
    "torch.distributed.checkpoint.metadata": {
        *("ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"),
        *("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
    },
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "WindowsPath"},
    "pathlib._local": {"Path", "PosixPath", "WindowsPath"},
}


def _memory_format(kind: Any, name: str) -> Any:
    """Replace `getattr`, which enum members name when Python 3.11.0 to 3.11.3 pickled them."""
    if kind is not _MEM_FORMAT_ENCODING or name not in kind.__members__:
        raise pickle.UnpicklingError(f"{kind}.{name} has no place in the index of a checkpoint")
    return kind[name]


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = name in _PLAIN_CLASSES.get(module, ())
        if known or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):
            return _memory_format
        raise pickle.UnpicklingError(f"{module}.{name} has no place in the index of a checkpoint")


def read_index(path: str) -> Metadata:
    """Read the index file of a checkpoint: its tensors and their locations.

    A damaged file may raise any exception. An index that names other classes raises
    UnpicklingError.
    """
    with io.open_file(path, "rb") as file:
        found = _PlainUnpickler(file).load()
    if not isinstance(found, Metadata):
        raise pickle.UnpicklingError(f"a {type(found).__name__} is no index of a checkpoint")
    return found


class Writer(FileSystemWriter):
    """Write a rank's tensors and their checksums, and flush both to the disk."""

    def __init__(self, path: str) -> None:
        super().__init__(path)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write the tensors planned for this rank; raises an OSError if the disk is full."""
        try:
            written = super().write_data(plan, planner)
        except RuntimeError as error:
            # PyTorch's writer wraps the system's error in its own. Raise the original.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        names = {str(result.storage_data.relative_path) for result in written.value()}
        plain = {PLAIN} if dist.is_main() else set()
        write_sums(str(self.path), dist.rank(), names | plain)
        disk.flush_folder(str(self.path))
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index; rank 0 calls this after all ranks wrote their tensors."""
        super().finish(metadata, results)
        disk.flush_folder(str(self.path))
        disk.flush_folder(os.path.dirname(str(self.path)))


class _Reader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        index = read_index(os.path.join(str(self.path), INDEX))
        if index.storage_meta is not None:
            index.storage_meta.load_id = self.load_id
        return index


def load_tensors(path: str, tensors: dict[str, torch.Tensor], *, alone: bool) -> None:
    """Load tensors in place from a checkpoint, by flat name; DTensors are allowed.

    Raises:
        UserError: `alone` is set in one of several processes, and PyTorch is too old for that.
    """
    settings: dict[str, Any] = {}
    if alone and dist.in_group():
        if "no_dist" not in signature(load).parameters:
            raise UserError(
                f"{path!r} cannot be read by several processes with PyTorch {torch.__version__}, "
                "each for itself. Try a newer one, or one file of it, by "
                "tools/export_checkpoint.py."
            )
        settings = {"no_dist": True}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is disabled, unavailable or uninitialized")
        load(cast("dict[str, Any]", tensors), storage_reader=_Reader(path), **settings)
