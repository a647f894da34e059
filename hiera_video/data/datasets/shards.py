"""Read videos from tar shards: `train-000000.tar`, `train-000001.tar`, ..., `val-...`, `test-...`.

If the folder contains `train.json`, this index lists the samples and the locations of the shards,
which may be elsewhere. `tools/make_shards.py` writes both. Without an index, the headers of the
shards are read every time. A `classes.txt` in the folder names the classes.
"""

import os
from urllib.parse import quote

from hiera_video.data.datasets import kinetics
from hiera_video.data.records import (
    NO_LABEL,
    RecordError,
    VideoRecord,
    check_split,
    raise_problems,
    resolve_path,
)
from hiera_video.data.shards import index as shard_index
from hiera_video.data.shards.cache import cache_limit_bytes, refusal, scheme_of
from hiera_video.data.shards.index import Shard
from hiera_video.utils.io import is_dir, is_file, is_url


def read_index(
    data_dir: str,
    split: str,
    *,
    path_prefix: str = "",
    num_classes: int | None = None,
    labelled: bool = True,
) -> list[VideoRecord]:
    """List the videos in the shards of a split; split is "train", "val" or "test".

    Shards are in `path_prefix`, a folder or a URL, or in `data_dir` if `path_prefix` is empty. The
    index may give a full path or URL for a shard instead. This function does not check whether
    indexed shards exist: a video whose shard is missing fails to decode. Without `labelled`
    (pretraining), labels are ignored.

    Raises RecordError for a split with neither index nor shards, and for an index with another
    structure. It also reports all samples without exactly one video or a label in range (the first
    ten, and their number).
    """
    check_split(split)
    folder = os.path.expanduser(path_prefix) or data_dir
    file = os.path.join(data_dir, f"{split}.json")
    problems: list[str] = []
    if data_dir and is_file(file):
        shards = shard_index.read_index(file)
    else:
        shards, problems = _scan(data_dir, folder, split, labelled=labelled)
    records: list[VideoRecord] = []
    for shard in shards:
        location = _locate(shard.file, folder)
        if why := _place_problem(location, below=(data_dir, folder)):
            problems.append(f"{file}: {location}: {why}")
            continue
        for sample, member in zip(shard.samples, shard.members(location), strict=True):
            problem = _label_problem(sample.label, num_classes) if labelled else ""
            if problem:
                problems.append(f"{location}: {sample.name}: {problem}")
            else:
                label = sample.label if labelled else NO_LABEL
                records.append(VideoRecord(member.path, label, len(records)))
    raise_problems(problems)
    if not records:
        raise RecordError(f"the shards of {split} in {folder} must hold videos, got none.")
    if any(is_url(_locate(shard.file, folder)) for shard in shards):
        cache_limit_bytes()  # report a wrong limit here, not in every worker
    return records


def class_names(data_dir: str) -> list[str] | None:
    """Return the lines of `classes.txt`, one name per label; None if the file does not exist."""
    return kinetics.class_names(data_dir)


def _scan(
    data_dir: str, folder: str, split: str, *, labelled: bool
) -> tuple[list[Shard], list[str]]:
    names = shard_index.shard_files(folder, split) if data_dir and is_dir(folder) else []
    if not names:
        raise RecordError(
            f"DATA.PATH_TO_DATA_DIR must be the folder of {split}.json ({shard_index.HOLDS}) or "
            f"{split}-000000.tar and so on, got {data_dir!r}, which has neither."
        )
    shards, problems = [], []
    for name in names:
        samples, wrong = shard_index.scan_shard(os.path.join(folder, name), labelled=labelled)
        shards.append(Shard(name, samples))
        problems += wrong
    return shards, problems


def _locate(file: str, folder: str) -> str:
    if not is_url(folder) or is_url(file):
        return resolve_path(file, folder=folder)
    is_web = scheme_of(folder) in ("http", "https")
    name = quote(file, errors="surrogatepass") if is_web else file
    return f"{folder.rstrip('/')}/{name}"


def _place_problem(location: str, *, below: tuple[str, str]) -> str:
    """Return the reason why an index may not name this location of a shard, or "".

    `below` holds the folder of the index and DATA.PATH_PREFIX. A file:// URL must be inside one of
    them.
    """
    if not is_url(location):
        return ""
    if why := refusal(location):
        return f"{why}."
    if scheme_of(location) != "file":
        return ""
    try:
        path = os.path.realpath(_file_of(location))
        folders = [os.path.realpath(_file_of(folder)) for folder in below]
    except ValueError:  # a NUL
        return "must be a path without a NUL character."
    if any(os.path.commonpath([path, folder]) == folder for folder in folders):
        return ""
    return "a file:// URL must lie below the folder of the index. Try its plain path."


def _file_of(folder: str) -> str:
    path = folder.partition("://")[2] if scheme_of(folder) == "file" else folder
    return os.path.expanduser(path)  # as fsspec does


def _label_problem(label: int, num_classes: int | None) -> str:
    if label == NO_LABEL:
        return "must have a label, got none. Try TASK ssl, which needs none."
    if label < 0:
        return f"the label must be 0 or more, got {label}."
    if label >= 2**31:
        return f"the label must be below 2^31, got {label}."
    if num_classes is not None and label >= num_classes:
        return (
            f"the label must be in 0..{num_classes - 1} (MODEL.NUM_CLASSES is {num_classes}), "
            f"got {label}."
        )
    return ""
