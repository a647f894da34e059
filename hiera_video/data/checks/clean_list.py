"""Write a list without its bad videos, in the format that its dataset reads."""

import csv
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from typing import Any

import simplejson

from hiera_video.data.records import NO_LABEL, RecordError, VideoRecord, find_file
from hiera_video.utils import disk, io
from hiera_video.utils.read_json import parse_json

_SSV2_PREFIX = "something-something-v2-"


@dataclass(frozen=True, slots=True)
class SplitList:
    """The list of a split, its origin, and the names of its classes."""

    name: str
    dataset: str
    data_dir: str
    records: Sequence[VideoRecord]
    num_classes: int
    class_names: list[str] | None

    @property
    def file_name(self) -> str:
        """The file name of the clean list, under which its dataset looks for it."""
        if self.dataset == "ssv2":
            return "train.json" if self.name == "train" else "validation.json"
        return f"{self.name}.csv"

    def without(self, bad: Container[str]) -> list[VideoRecord]:
        """Return the records of the videos that are not `bad`."""
        return [record for record in self.records if record.path not in bad]


def bad_videos(split: SplitList, reasons: Mapping[str, str]) -> dict[str, str]:
    """Return {path: reason} of the bad videos, in the order of the list.

    `reasons` has every path; an empty reason means a good video. A video whose name no list can
    hold is bad too.
    """
    found = {record.path: reasons[record.path] for record in split.records}
    if split.dataset != "ssv2":  # ssv2's json holds no paths
        found = {path: why or unlistable(path) for path, why in found.items()}
    return {path: why for path, why in found.items() if why}


def write_clean(folder: str, split: SplitList, bad: Container[str]) -> str:
    """Write the list without the bad videos; return its path, or "" if no video is left.

    The list of Something-Something v2 is written as json, that of every other dataset in the
    format of datasets/kinetics.py.
    """
    file = os.path.join(folder, split.file_name)
    good = split.without(bad)
    if not good:
        with suppress(FileNotFoundError):  # an earlier check may have written one
            os.unlink(file)
        return ""
    if split.dataset == "ssv2":
        kept = [record.path not in bad for record in split.records]
        write_clean_ssv2(folder, split.data_dir, split.name, kept)
        return file
    write_clean_csv(file, good)
    if split.class_names:
        write_class_names(os.path.join(folder, "classes.txt"), split.class_names)
    return file


def write_clean_csv(file: str, records: Iterable[VideoRecord]) -> None:
    """Write `path label` lines (without a label, just the path) for datasets/kinetics.py.

    Paths are absolute, so that the list reads the same from any folder and with any
    DATA.PATH_PREFIX. The caller must leave out paths that no list can hold (see `unlistable`).
    """
    lines = [_line(record) for record in records]
    _write(file, "".join(lines))


def unlistable(path: str) -> str:
    """Return the reason why a list cannot hold a path, or ""."""
    if "\n" in path or "\r" in path:
        return "has a line break in its name, which no list can hold."
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "has a name that is not UTF-8, which no list can hold."
    return ""


def write_clean_ssv2(folder: str, data_dir: str, split: str, kept: Sequence[bool]) -> str:
    """Write the split's json with the kept entries unchanged, and the labels; return its name.

    `kept` has one element for each entry of the list. "test" is the validation set, and names are
    the same as in datasets/ssv2.py.
    """
    name = "train" if split == "train" else "validation"
    entries = _read_ssv2(data_dir, name)
    assert len(entries) == len(kept)
    clean = [entry for entry, keep in zip(entries, kept, strict=True) if keep]
    _write(os.path.join(folder, f"{name}.json"), simplejson.dumps(clean, indent=0))
    try:
        labels = _read_ssv2(data_dir, "labels")
    except RecordError:  # pretraining needs no labels
        return f"{name}.json"
    _write(os.path.join(folder, "labels.json"), simplejson.dumps(labels, indent=0))
    return f"{name}.json"


def write_class_names(file: str, names: Sequence[str]) -> None:
    """Write one class name per line, in the order of the labels."""
    _write(file, "".join(f"{name}\n" for name in names))


def write_table(file: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a csv with a header, for people and spreadsheets."""
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    _write(file, text.getvalue())


def write_json(file: str, content: Mapping[str, Any]) -> None:
    """Write an object as indented json."""
    _write(file, simplejson.dumps(content, indent=2) + "\n")


def _line(record: VideoRecord) -> str:
    path = record.path if io.is_url(record.path) else os.path.abspath(record.path)
    alone = record.label == NO_LABEL
    # The reader would take such an ending for a separator or a label.
    if path[-1].isspace() or path[-1] == "," or (alone and path[-1].isdigit()):
        path = '"' + path.replace('"', '""') + '"'
    return f"{path}\n" if alone else f"{path} {record.label}\n"


def _read_ssv2(data_dir: str, name: str) -> Any:
    names = [f"{_SSV2_PREFIX}{name}.json", f"{name}.json"]
    with io.open_file(find_file(data_dir, names, holds="json")) as text:
        return parse_json(text.read())


def _write(file: str, text: str) -> None:
    disk.write_atomic(file, lambda binary: binary.write(text.encode("utf-8", "backslashreplace")))
