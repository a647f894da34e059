"""Read videos from class folders without lists: `train/CLASS/...`, `val/CLASS/...`, `test/...`.

The classes are the folders of `train`, numbered in the order of their names. If `classes.txt` is in
the data folder, its lines are the classes, in their order. A class folder may contain folders.
Hidden files, and files without the ending of a video, are skipped.
"""

import os

from hiera_video.data.datasets import kinetics
from hiera_video.data.prepare.folders import VIDEO_ENDINGS, suggest_preparing, videos_in
from hiera_video.data.records import (
    NO_LABEL,
    SPLITS,
    RecordError,
    VideoRecord,
    check_split,
    raise_problems,
)
from hiera_video.utils.errors import UserError
from hiera_video.utils.io import is_dir, is_file

_CLASSES = "classes.txt"


def read_index(
    data_dir: str,
    split: str,
    *,
    path_prefix: str = "",
    num_classes: int | None = None,
    labelled: bool = True,
) -> list[VideoRecord]:
    """List the videos in the folder `split` ("train", "val" or "test") of `data_dir`.

    Records are sorted by class, and by path within a class, independent of the file system. Without
    `labelled` (pretraining), videos may lie anywhere below `split`.

    Raises RecordError for a missing or unreadable folder, and for a class of `train` without
    videos. It also reports classes that are not in `train` (or `classes.txt`), and videos outside
    the class folders.
    """
    check_split(split)
    if path_prefix:
        raise RecordError(
            f"DATA.PATH_PREFIX must be empty for a data set without lists, got {path_prefix!r}. "
            "Try DATA.PATH_TO_DATA_DIR."
        )
    folder = os.path.join(data_dir, split)
    if not data_dir or not is_dir(folder):
        has_splits = any(is_dir(os.path.join(data_dir, name)) for name in SPLITS)
        way_out = "" if has_splits else suggest_preparing(data_dir)
        raise RecordError(
            f"DATA.PATH_TO_DATA_DIR must be the folder of {split}/ (a folder for each class, with "
            f"its videos), got {data_dir!r}, which lacks it. {way_out}".rstrip()
        )
    if not labelled:
        return _records([(path, NO_LABEL) for path in _videos_in(folder)], folder)
    names = _class_names(data_dir)
    if num_classes is not None and len(names) > num_classes:
        raise RecordError(
            f"MODEL.NUM_CLASSES must be {len(names)}, the number of classes of {data_dir}, got "
            f"{num_classes}."
        )
    return _read_classes(folder, names, needs_all=split == "train")


def class_names(data_dir: str) -> list[str] | None:
    """Return the lines of `classes.txt` if the file exists, else the class folders of `train`."""
    return _class_names(data_dir)


def _class_names(data_dir: str) -> list[str]:
    if data_dir and is_file(os.path.join(data_dir, _CLASSES)):
        return kinetics.class_names(data_dir) or []
    folder = os.path.join(data_dir, "train")
    if not is_dir(folder):
        raise RecordError(
            f"{data_dir} must hold train/, whose folders are the classes, or {_CLASSES}, which "
            "names them, got neither."
        )
    return _class_folders(folder)


def _read_classes(folder: str, names: list[str], *, needs_all: bool) -> list[VideoRecord]:
    labels = {name: label for label, name in enumerate(names)}
    problems = [
        f"{os.path.join(folder, name)}: its class must be in train/ or {_CLASSES}, which lack it."
        for name in _class_folders(folder)
        if name not in labels
    ]
    problems += [
        f"{os.path.join(folder, name)}: a video must be in the folder of its class."
        for name in _names(folder)
        if os.path.splitext(name)[1].lower() in VIDEO_ENDINGS
        and is_file(os.path.join(folder, name))
    ]
    found: list[tuple[str, int]] = []
    for name, label in labels.items():
        path = os.path.join(folder, name)
        videos = _videos_in(path) if is_dir(path) else []
        if needs_all and not videos:
            problems.append(f"{path}: must be a folder with a video, got none.")
        found += [(video, label) for video in videos]
    raise_problems(problems)
    return _records(found, folder)


def _records(found: list[tuple[str, int]], folder: str) -> list[VideoRecord]:
    if not found:
        endings = " ".join(sorted(VIDEO_ENDINGS))
        raise RecordError(f"{folder} must hold videos, got no file that ends in {endings}.")
    return [VideoRecord(path, label, index) for index, (path, label) in enumerate(found)]


def _class_folders(folder: str) -> list[str]:
    return [name for name in _names(folder) if is_dir(os.path.join(folder, name))]


def _names(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise RecordError(
            f"{folder} must be a folder that can be read, got: {error.strerror}."
        ) from None


def _videos_in(folder: str) -> list[str]:
    try:
        return videos_in(folder)
    except UserError as error:
        raise RecordError(str(error)) from None
