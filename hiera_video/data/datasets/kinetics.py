"""Read Kinetics, or any data set with the same lists: `train.csv`, `val.csv`, `test.csv`.

A line is `path label`, separated by spaces, a tab or a comma. The label is the last field, so a
path may contain spaces. Both may be in double quotes. Blank lines are skipped, and there is no
header. If `classes.txt` is in the same folder, it names the classes, one per line in the order of
the labels.
"""

import os
import re

from hiera_video.data.prepare.folders import VIDEO_ENDINGS, is_official_header, suggest_preparing
from hiera_video.data.records import (
    NO_LABEL,
    SPLITS,
    RecordError,
    VideoRecord,
    check_split,
    find_file,
    open_text,
    raise_problems,
    resolve_path,
)
from hiera_video.utils.io import exists, is_file

_LINE = re.compile(
    r'(?P<path>"(?:[^"]|"")*"|.*[^\s,])[\s,]+(?P<label>"[^"]*"|[^\s,]+)',
)
_SEVERAL = re.compile(r"[+-]?[0-9]+(?:[\s,;|/]+[+-]?[0-9]+)+")
# A path up to its file extension, then the first of several labels.
_PATH_AND_MORE = re.compile(r'(?P<path>.*(?P<ending>\.\w+)"?)[\s,]+[0-9]+(?:[\s,]+[0-9]+)*')
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")
# Column names in headers, including those of the official lists.
_HEADER_WORDS = frozenset(
    [
        *("path", "video", "video_path", "video_name", "video_id", "clip", "name", "id"),
        *("file", "filename", "file_name", "filepath", "file_path"),
        *("label", "labels", "label_id", "class", "class_id", "category"),
        *("youtube_id", "time_start", "time_end", "split"),
    ]
)


def read_index(
    data_dir: str,
    split: str,
    *,
    path_prefix: str = "",
    num_classes: int | None = None,
    labelled: bool = True,
) -> list[VideoRecord]:
    """Read the list `{split}.csv` of `data_dir`; split is "train", "val" or "test".

    A relative path is resolved against `path_prefix` if given, else against the folder of the csv,
    never against the working directory (PySlowFast without a prefix uses that). This function does
    not check whether the videos exist. `num_classes` bounds the labels. Without `labelled`
    (pretraining), a line may be only a path, and labels are ignored.

    Raises RecordError for a file that is missing, empty or not text, and for a header. It also
    reports all lines without a path or without a label in range, as file:line (the first ten, and
    their number).
    """
    check_split(split)
    lists = [os.path.join(data_dir, f"{name}.csv") for name in SPLITS]
    file = find_file(
        data_dir,
        [f"{split}.csv"],
        holds="lines of `path label`, one per video",
        way_out=lambda: "" if any(map(is_file, lists)) else suggest_preparing(data_dir),
    )
    folder = path_prefix or os.path.dirname(file)
    records: list[VideoRecord] = []
    problems: list[str] = []
    try:
        with open_text(file) as lines:
            for number, line in enumerate(lines, start=1):
                line = line.strip().lstrip("\ufeff")
                if not line:
                    continue
                if number == 1 and is_official_header(line):
                    raise RecordError(
                        f"{file}:1: a line must be `path label`, got {line!r}, the header of an "
                        f"official list of Kinetics. {suggest_preparing(data_dir)}"
                    )
                parsed: tuple[str, int] | str
                if labelled:
                    parsed = _parse(line, num_classes=num_classes)
                elif number == 1 and _is_header(line, folder):
                    parsed = (
                        f"a line must be a path, got {line!r}, which looks like a header. "
                        "Delete the line."
                    )
                else:
                    parsed = _path_alone(line)
                if isinstance(parsed, str):
                    header = number == 1 and "must be a whole number" in parsed
                    hint = " If it is a header, delete the line." if header else ""
                    problems.append(f"{file}:{number}: {parsed}{hint}")
                else:
                    path, label = parsed
                    path = resolve_path(path, folder=folder)
                    records.append(VideoRecord(path, label, len(records)))
    except UnicodeDecodeError:
        raise RecordError(
            f"{file} must be UTF-8 text with lines of `path label`, got something else."
        ) from None
    raise_problems(problems)
    if not records:
        raise RecordError(f"{file} must hold lines of `path label`, got none: the file is empty.")
    return records


def class_names(data_dir: str) -> list[str] | None:
    """Return the lines of `classes.txt`, one name per label; None if the file does not exist.

    Raises RecordError if the file is not text or has an empty line before its end.
    """
    file = os.path.join(data_dir, "classes.txt")
    if not data_dir or not is_file(file):
        return None
    try:
        with open_text(file) as lines:
            names = lines.read().strip().splitlines()
    except UnicodeDecodeError:
        raise RecordError(f"{file} must be UTF-8 text, a class name per line.") from None
    names = [name.strip() for name in names]
    if "" in names:
        line = names.index("") + 1
        raise RecordError(f"{file}:{line}: a line must be a class name, got an empty one.")
    return names


def _path_alone(line: str) -> tuple[str, int]:
    """Return the path of a line and NO_LABEL; a label after the path is dropped."""
    match = _LINE.fullmatch(line)
    if match is None:
        return _unquoted(line), NO_LABEL
    label = _unquoted(match["label"]).strip()
    if not _WHOLE_NUMBER.fullmatch(label) and not _SEVERAL.fullmatch(label):
        return _unquoted(line), NO_LABEL
    more = _path_and_more(match["path"])
    return _unquoted(more or match["path"]), NO_LABEL


def _path_and_more(text: str) -> str:
    """Return the path if `text` is a path followed by further labels, else ""."""
    match = _PATH_AND_MORE.fullmatch(text)
    return match["path"] if match and match["ending"].lower() in VIDEO_ENDINGS else ""


def _is_header(line: str, folder: str) -> bool:
    """Return whether a line holds only column names and is not the path of an existing file."""
    words = [_unquoted(word).casefold() for word in re.split(r"[\s,]+", line)]
    return _HEADER_WORDS.issuperset(words) and not exists(resolve_path(line, folder=folder))


def _unquoted(path: str) -> str:
    # Spreadsheets quote a path that contains a comma.
    if len(path) > 1 and path[0] == path[-1] == '"':
        return path[1:-1].replace('""', '"')
    return path


def _parse(line: str, *, num_classes: int | None) -> tuple[str, int] | str:
    """Parse a line into path and label, or return its problem in words."""
    match = _LINE.fullmatch(line)
    if match is None:
        return f"a line must be `path label`, got {line!r} without a label."
    path, label = _unquoted(match["path"]), _unquoted(match["label"]).strip()
    is_number = bool(_WHOLE_NUMBER.fullmatch(label))
    if _SEVERAL.fullmatch(label) or (is_number and _path_and_more(match["path"])):
        return (
            f"a line must hold one label, got several in {line!r}: a video of several classes is "
            "not supported. Try the main one alone."
        )
    if not is_number:
        return f"the label, the last field, must be a whole number, got {label!r} in {line!r}."
    number = int(label)
    if number < 0:
        return f"the label must be 0 or more, got {number}."
    if num_classes is not None and number >= num_classes:
        return (
            f"the label must be in 0..{num_classes - 1} (MODEL.NUM_CLASSES is {num_classes}), "
            f"got {number}."
        )
    return path, number
