"""UCF101 in the files of its release: `classInd.txt`, and train and test lists for three splits.

`classInd.txt` numbers the classes from 1. A line of `trainlist01.txt` is `Class/video.avi number`,
one of `testlist01.txt` a path alone, whose folder is its class. The lists lie in the folder of the
data set or in `ucfTrainTestlist` there, as they are unpacked; the videos in `UCF-101` or beside the
lists.
"""

import os

from hiera_video.data.records import (
    NO_LABEL,
    RecordError,
    VideoRecord,
    check_split,
    find_file,
    open_text,
    raise_problems,
    resolve_path,
)
from hiera_video.utils.io import is_dir

_LIST_FOLDER = "ucfTrainTestlist"
_VIDEO_FOLDER = "UCF-101"
_CLASSES = "classInd.txt"


def read_index(
    data_dir: str,
    split: str,
    *,
    path_prefix: str = "",
    num_classes: int | None = None,
    labelled: bool = True,
    split_number: int = 1,
) -> list[VideoRecord]:
    """Read the train or test list of split 1, 2 or 3; "val" is the test list, as in the literature.

    Labels are the numbers of `classInd.txt` less 1. Videos are looked for in `path_prefix`, or, if
    that is empty, in `UCF-101` of `data_dir` if it is there, else in `data_dir`. Where they are not
    `labelled`, for pretraining, neither `classInd.txt` nor a number in the list is looked at.

    Raises RecordError for a file that is missing, empty or no text, and for all lines whose class
    is not in `classInd.txt` or not their number's, as file:line (the first ten, and how many).
    """
    check_split(split)
    labels = _read_classes(data_dir, num_classes=num_classes) if labelled else None
    kind = "train" if split == "train" else "test"
    file = _find(data_dir, f"{kind}list{split_number:02d}.txt", "lines of `Class/video.avi`")
    videos = os.path.join(data_dir, _VIDEO_FOLDER)
    folder = path_prefix or (videos if is_dir(videos) else data_dir)
    records: list[VideoRecord] = []
    problems: list[str] = []
    for number, line in _lines(file):
        path, label = _parse(line)
        problem = "" if labels is None else _problem(path, label, labels)
        if problem:
            problems.append(f"{file}:{number}: {problem}")
            continue
        known = NO_LABEL if labels is None else labels[_class_of(path)]
        records.append(VideoRecord(resolve_path(path, folder=folder), known, len(records)))
    raise_problems(problems)
    if not records:
        raise RecordError(f"{file} must hold lines of `Class/video.avi`, got none: it is empty.")
    return records


def class_names(data_dir: str) -> list[str] | None:
    """Return the names of `classInd.txt` in the order of its numbers."""
    labels = _read_classes(data_dir, num_classes=None)
    return sorted(labels, key=labels.__getitem__)


def _find(data_dir: str, name: str, holds: str) -> str:
    names = [name, os.path.join(_LIST_FOLDER, name)]
    return find_file(data_dir, names, holds=holds)


def _lines(file: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        with open_text(file) as text:
            lines = [line.strip().lstrip("\ufeff") for line in text]
    except UnicodeDecodeError:
        raise RecordError(f"{file} must be UTF-8 text, got something else.") from None
    return [(number, line) for number, line in enumerate(lines, start=1) if line]


def _read_classes(data_dir: str, *, num_classes: int | None) -> dict[str, int]:
    """Return the labels, from 0, by class name."""
    file = _find(data_dir, _CLASSES, "lines of `number Class`, from 1 on")
    labels: dict[str, int] = {}
    problems = []
    for line_number, line in _lines(file):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name.strip():
            problems.append(f"{file}:{line_number}: a line must be `number Class`, got {line!r}.")
        elif name.strip() in labels:
            problems.append(f"{file}:{line_number}: the class {name.strip()!r} is there twice.")
        else:
            labels[name.strip()] = int(number) - 1
    raise_problems(problems)
    if sorted(labels.values()) != list(range(len(labels))) or not labels:
        raise RecordError(f"{file} must number its {len(labels)} classes from 1 on, each once.")
    if num_classes is not None and len(labels) > num_classes:
        raise RecordError(
            f"MODEL.NUM_CLASSES must be {len(labels)}, the number of classes in {file}, got "
            f"{num_classes}."
        )
    return labels


def _parse(line: str) -> tuple[str, str]:
    """Return the path, and the number behind it, or ""."""
    path, _, number = line.rpartition(" ")
    return (path.rstrip(), number) if path and number.isdecimal() else (line, "")


def _class_of(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[0].rpartition("/")[2]


def _problem(path: str, number: str, labels: dict[str, int]) -> str:
    name = _class_of(path)
    if name not in labels:
        return f"the folder must be a class of {_CLASSES}, got {name!r} in {path!r}."
    if number and int(number) - 1 != labels[name]:
        return f"the number must be that of {name} in {_CLASSES}, {labels[name] + 1}, got {number}."
    return ""
