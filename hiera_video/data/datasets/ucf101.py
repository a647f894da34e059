"""Read UCF101 from its release: `classInd.txt`, and train and test lists for three splits.

`classInd.txt` numbers the classes from 1. A line of `trainlist01.txt` is `Class/video.avi number`.
A line of `testlist01.txt` is only a path, whose folder is the class. The lists are in the folder of
the data set, or in `ucfTrainTestlist` there, as unpacked. The videos are in `UCF-101` or next to
the lists.
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

    Labels are the numbers of `classInd.txt` minus 1. Videos are in `path_prefix`. If `path_prefix`
    is empty, they are in `UCF-101` in `data_dir` if it exists, else in `data_dir`. Without
    `labelled` (pretraining), `classInd.txt` and the numbers in the list are ignored.

    Raises RecordError for a file that is missing, empty or not text. It also reports all lines
    whose class is not in `classInd.txt` or does not match their number, as file:line (the first
    ten, and their number).
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
    """Return the class names of `classInd.txt` in the order of their numbers."""
    labels = _read_classes(data_dir, num_classes=None)
    return sorted(labels, key=labels.__getitem__)


def _find(data_dir: str, name: str, holds: str) -> str:
    names = [name, os.path.join(_LIST_FOLDER, name)]
    return find_file(data_dir, names, holds=holds)


def _lines(file: str) -> list[tuple[int, str]]:
    """Read a text file; return its lines that are not blank, with their line numbers."""
    try:
        with open_text(file) as text:
            lines = [line.strip().lstrip("\ufeff") for line in text]
    except UnicodeDecodeError:
        raise RecordError(f"{file} must be UTF-8 text, got something else.") from None
    return [(number, line) for number, line in enumerate(lines, start=1) if line]


def _read_classes(data_dir: str, *, num_classes: int | None) -> dict[str, int]:
    """Read `classInd.txt`; return the label of each class name, starting at 0."""
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
    """Split a line into its path and its number, "" if it has none."""
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
