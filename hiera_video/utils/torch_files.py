"""Load files of torch.save into plain types, never larger in memory than on the disk."""

import argparse
import os
import zipfile
from typing import Any

import torch


def load_plain(path: str, *, mmap: bool = False) -> Any:
    """Load what torch.save wrote to `path`, with tensors on the CPU, without running its code.

    Accepts plain types, tensors, and the arguments of a script (argparse.Namespace), which many
    trainers save with their weights. With `mmap`, tensors are read from the disk when used, except
    from files in the format before torch 1.6.

    Raises:
        ValueError: The content would be larger in memory than the file.
        Exception: The readers may raise any exception for a damaged file.
    """
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _refuse_inflation(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_zip)


def _refuse_inflation(path: str) -> None:
    """Raise a ValueError for compressed or overlapping records, which torch.save never writes.

    PyTorch's reader would inflate them: 100 MB can become 100 GB.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError("its records are compressed")
    if sum(record.file_size for record in records) > os.path.getsize(path):
        raise ValueError("its records are larger than the file")
