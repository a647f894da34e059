"""Files of torch.save, read into plain types, and no larger in memory than on the disk."""

import argparse
import os
import zipfile
from typing import Any

import torch


def load_plain(path: str) -> Any:
    """Return what torch.save wrote to `path`, with its tensors on the CPU; no code of it runs.

    Beside plain types and tensors, the arguments of a script (argparse.Namespace) are read, which
    many trainers save with their weights.

    Raises:
        anything that a damaged file makes the readers raise; ValueError for one that would grow.
    """
    if zipfile.is_zipfile(path):
        _refuse_inflation(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _refuse_inflation(path: str) -> None:
    """Raise a ValueError for records that are compressed or overlap, which torch.save never writes.

    PyTorch's reader inflates them all the same: 100 MB may become 100 GB.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError("its records are compressed")
    if sum(record.file_size for record in records) > os.path.getsize(path):
        raise ValueError("its records are larger than the file")
