"""Read HMDB51 from the files of its release: a list for each class and each of three splits.

A line of `brush_hair_test_split1.txt` is `video.avi 1`: 1 is training, 2 is test, 0 is neither. The
lists are in the folder of the data set, or in `testTrainMulti_7030_splits` there, as unpacked. The
videos are in class folders in `hmdb51_org` or next to the lists. Classes are numbered in the order
of their names.
"""

import os
import re

from hiera_video.data.records import (
    NO_LABEL,
    RecordError,
    VideoRecord,
    check_split,
    open_text,
    raise_problems,
)
from hiera_video.utils.io import is_dir

_LIST_FOLDER = "testTrainMulti_7030_splits"
_VIDEO_FOLDER = "hmdb51_org"
_FILE = re.compile(r"(?P<name>.+)_test_split(?P<number>[0-9]+)\.txt")
_LINE = re.compile(r"(?P<path>.*\S)\s+(?P<use>[012])")
_USES = {"train": "1", "val": "2", "test": "2"}


def read_index(
    data_dir: str,
    split: str,
    *,
    path_prefix: str = "",
    num_classes: int | None = None,
    labelled: bool = True,
    split_number: int = 1,
) -> list[VideoRecord]:
    """List the training or test videos of split 1, 2 or 3; "val" is test, as in the literature.

    A video is `CLASS/NAME` in `path_prefix`. If `path_prefix` is empty, the folder is `hmdb51_org`
    in `data_dir` if it exists, else `data_dir`. Records are sorted by class, then as in the lists.

    Raises RecordError for lists that are missing or not text, and for a class without a list of
    this split. It also reports all lines that are not `video.avi 0|1|2`, as file:line (the first
    ten, and their number).
    """
    check_split(split)
    lists, names = _find_lists(data_dir)
    if labelled and num_classes is not None and len(names) > num_classes:
        raise RecordError(
            f"MODEL.NUM_CLASSES must be {len(names)}, the number of classes with a list in "
            f"{lists}, got {num_classes}."
        )
    videos = os.path.join(data_dir, _VIDEO_FOLDER)
    folder = os.path.expanduser(path_prefix) or (videos if is_dir(videos) else data_dir)
    records: list[VideoRecord] = []
    problems: list[str] = []
    for label, name in enumerate(names):
        file = os.path.join(lists, f"{name}_test_split{split_number}.txt")
        videos_of_class, wrong = _read_list(file, use=_USES[split])
        problems += wrong
        for video in videos_of_class:
            path = os.path.join(folder, name, video)
            records.append(VideoRecord(path, label if labelled else NO_LABEL, len(records)))
    raise_problems(problems)
    if not records:
        raise RecordError(
            f"the lists in {lists} must mark videos of split {split_number} with "
            f"{_USES[split]}, got none."
        )
    return records


def class_names(data_dir: str) -> list[str] | None:
    """Return the names of the classes that have lists, sorted."""
    return _find_lists(data_dir)[1]


def _find_lists(data_dir: str) -> tuple[str, list[str]]:
    """Find the lists; return their folder and the names of the classes."""
    for folder in (data_dir, os.path.join(data_dir, _LIST_FOLDER)) if data_dir else ():
        try:
            files = os.listdir(folder) if is_dir(folder) else []
        except OSError as error:
            raise RecordError(
                f"{folder} must be a folder that can be read, got: {error.strerror or error}."
            ) from None
        names = sorted({match["name"] for file in files if (match := _FILE.fullmatch(file))})
        if names:
            return folder, names
    raise RecordError(
        "DATA.PATH_TO_DATA_DIR must be the folder of CLASS_test_split1.txt and so on (lines of "
        f"`video.avi 1`), or of {_LIST_FOLDER} with them, got {data_dir!r}, which lacks both."
    )


def _read_list(file: str, *, use: str) -> tuple[list[str], list[str]]:
    """Read a list; return the videos that are marked with `use`, and the problems of its lines."""
    videos, problems = [], []
    try:
        with open_text(file) as lines:
            for number, line in enumerate(lines, start=1):
                line = line.strip().lstrip("\ufeff")
                match = _LINE.fullmatch(line)
                if line and not match:
                    problems.append(
                        f"{file}:{number}: a line must be `video.avi 0`, 1 or 2, got {line!r}."
                    )
                elif match and match["use"] == use:
                    videos.append(match["path"])
    except UnicodeDecodeError:
        problems.append(f"{file} must be UTF-8 text, got something else.")
    return videos, problems
