"""Read Something-Something v2 from its labels file and a json list of clips for each split.

The files have the names of the release, with or without its prefix. `labels.json` maps a template
to a number in quotes. `train.json` and `validation.json` are lists of {"id", "template", ...}. The
lists put the objects of a template in brackets ("Poking [something] so that it falls over"), and
the labels file does not.
"""

import os
from typing import Any

import simplejson

from hiera_video.data.records import (
    NO_LABEL,
    RecordError,
    VideoRecord,
    check_split,
    find_file,
    open_text,
    raise_problems,
)
from hiera_video.utils.io import is_dir
from hiera_video.utils.read_json import parse_json

_PREFIX = "something-something-v2-"
_VIDEO_FOLDER = "20bn-something-something-v2"
_HOLDS = {
    "labels": 'a json object of "template": "number"',
    "train": 'a json list of {"id": ..., "template": ...}',
    "validation": 'a json list of {"id": ..., "template": ...}',
}


def read_index(
    data_dir: str,
    split: str,
    *,
    path_prefix: str = "",
    num_classes: int | None = None,
    labelled: bool = True,
) -> list[VideoRecord]:
    """List the videos of one split of `data_dir`; split is "train", "val" or "test".

    "test" is the validation set, as is usual: the labels of the test set are not public. All
    published figures (such as Hiera, arXiv 2306.00989, table 6) are for the validation set.

    The videos are in `path_prefix`, or in the folder `20bn-something-something-v2` of `data_dir` if
    `path_prefix` is empty. A video is `ID.webm` or `ID.mp4`, whichever exists. If neither exists
    (the decoder then reports it), or the folder cannot be listed, it is `ID.webm`. Without
    `labelled` (pretraining), the labels file and the templates of entries are ignored.

    Raises RecordError for files that are missing or have another structure. It also reports all
    entries without an id, or with a template that is not in the labels file (the first ten, and
    their number).
    """
    check_split(split)
    labels = _read_labels(data_dir, num_classes=num_classes) if labelled else None
    name = "train" if split == "train" else "validation"
    file, entries = _read_json(data_dir, name)
    if not isinstance(entries, list) or not entries:
        raise _shape_error(file, name, entries)
    folder = path_prefix or os.path.join(data_dir, _VIDEO_FOLDER)
    present = _names_in(folder)
    records: list[VideoRecord] = []
    problems: list[str] = []
    for place, entry in enumerate(entries):
        parsed = _parse(entry, labels)
        if isinstance(parsed, str):
            problems.append(f"{file}: entry {place}: {parsed}")
            continue
        video_id, label = parsed
        is_mp4 = f"{video_id}.webm" not in present and f"{video_id}.mp4" in present
        path = os.path.join(folder, f"{video_id}.{'mp4' if is_mp4 else 'webm'}")
        records.append(VideoRecord(path, label, len(records)))
    raise_problems(problems)
    return records


def class_names(data_dir: str) -> list[str] | None:
    """Return the templates in the order of their labels."""
    labels = _read_labels(data_dir, num_classes=None)
    return sorted(labels, key=labels.__getitem__)


def _read_labels(data_dir: str, *, num_classes: int | None) -> dict[str, int]:
    file, content = _read_json(data_dir, "labels")
    if not isinstance(content, dict) or not content:
        raise _shape_error(file, "labels", content)
    try:
        labels = {template: int(number) for template, number in content.items()}
    except (TypeError, ValueError):
        raise _shape_error(file, "labels", content) from None
    if sorted(labels.values()) != list(range(len(labels))):
        raise RecordError(
            f"{file} must number its {len(labels)} templates 0..{len(labels) - 1}, each once."
        )
    if num_classes is not None and len(labels) > num_classes:
        raise RecordError(
            f"MODEL.NUM_CLASSES must be {len(labels)}, the number of templates in {file}, "
            f"got {num_classes}."
        )
    return labels


def _parse(entry: Any, labels: dict[str, int] | None) -> tuple[str, int] | str:
    """Parse an entry into id and label (NO_LABEL without `labels`), or return its problem."""
    if labels is None:
        if isinstance(entry, dict) and entry.get("id"):
            return str(entry["id"]), NO_LABEL
        return f'must have an "id", got {_short(entry)}.'
    if not isinstance(entry, dict) or not entry.get("id") or "template" not in entry:
        return f'must have an "id" and a "template", got {_short(entry)}.'
    template = str(entry["template"]).replace("[", "").replace("]", "")
    if template not in labels:
        return f"(id {entry['id']}) its template must be in the labels file, got {template!r}."
    return str(entry["id"]), labels[template]


def _read_json(data_dir: str, name: str) -> tuple[str, Any]:
    file = find_file(data_dir, [f"{_PREFIX}{name}.json", f"{name}.json"], holds=_HOLDS[name])
    try:
        with open_text(file) as text:
            return file, parse_json(text.read())
    except simplejson.JSONDecodeError as error:
        raise RecordError(f"{file}:{error.lineno}: must be json, got {error.msg}.") from None
    except UnicodeDecodeError:
        raise RecordError(f"{file} must be json in UTF-8, got something else.") from None


def _names_in(folder: str) -> frozenset[str]:
    # List the folder once. To check each of 200,000 files would take minutes on a network disk.
    try:
        return frozenset(os.listdir(folder)) if is_dir(folder) else frozenset()
    except OSError:
        return frozenset()


def _shape_error(file: str, name: str, content: Any) -> RecordError:
    return RecordError(f"{file} must hold {_HOLDS[name]}, got {_short(content)}.")


def _short(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 80 else f"{text[:77]}..."
