"""Write train.csv, val.csv, test.csv and classes.txt; check drafts of the lists by reading them."""

import os
import tempfile
from collections.abc import Iterable

from hiera_video.data.datasets import kinetics
from hiera_video.data.prepare.folders import Entry, Source
from hiera_video.data.records import NO_LABEL, SPLITS, resolve_path
from hiera_video.utils.disk import write_atomic
from hiera_video.utils.errors import UserError

CLASSES = "classes.txt"


def read_classes(path: str) -> list[str]:
    """Return the class names in a file, one per line, in the order of their numbers."""
    folder, name = os.path.split(os.path.abspath(path))
    if name == CLASSES:
        names = kinetics.class_names(folder)
    else:
        try:
            with open(path, encoding="utf-8-sig") as lines:
                names = [line.strip() for line in lines if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--classes must be a text file, got {path!r} ({error}).") from None
    if not names:
        raise UserError(f"--classes must be a file with a class name per line, got {path!r}.")
    return names


def number_classes(source: Source, output: str, classes_file: str = "") -> list[str] | None:
    """Return the class names in the order of their numbers, or None if there are none.

    The names come from the first of these that applies: `classes_file`; the source, if it numbers
    its classes itself; an earlier run's file in `output`, if it has all of them; the source's
    names in alphabetical order. Raises UserError if `classes_file` lacks a class, or if the
    numbers would contradict a list in `output` that this run does not write.
    """
    labels = {entry.label for entry in source.entries} - {None}
    named = sorted(label for label in labels if isinstance(label, str))
    if named:
        # A class without a video gets a number too.
        named = sorted({*named, *(source.class_names or ())})
    path = os.path.join(output, CLASSES)
    before = kinetics.class_names(output) if os.path.isfile(path) else None
    if classes_file:
        names: list[str] | None = read_classes(classes_file)
        lacking = [name for name in named if _tidy(name) not in (names or ())]
        if lacking:
            raise UserError(
                f"--classes must name all classes of SOURCE, got {classes_file!r} without "
                f"{lacking[0]!r} ({len(lacking)} lacking)."
            )
    elif not named:
        names = source.class_names
    else:
        names = list(dict.fromkeys(map(_tidy, named)))
        if before and set(names) <= set(before):
            names = before
    others = [s for s in SPLITS if os.path.isfile(_list(output, s)) and s not in source.splits()]
    if others == ["test"] and _test_is_val(output):
        others = []  # this run rewrites it, as a copy of val
    if before and before != names and others:
        raise UserError(
            f"OUTPUT must keep the class numbers of its {others[0]}.csv, got other classes than "
            f"its {CLASSES}. Try SOURCE with all splits, or another OUTPUT."
        )
    return names


def label_numbers(entries: Iterable[Entry], names: list[str] | None) -> list[int]:
    """Return the class number of each entry, NO_LABEL for an entry without a class."""
    numbers = {name: number for number, name in enumerate(names or ())}
    return [
        NO_LABEL
        if entry.label is None
        else entry.label
        if isinstance(entry.label, int)
        else numbers[_tidy(entry.label)]
        for entry in entries
    ]


def write_lists(
    output: str, lines: dict[str, list[tuple[str, int]]], names: list[str] | None
) -> dict[str, int]:
    """Write a list for every split of `lines`, and the class names; return the lists' lengths.

    lines: (path, label) by split; a path is absolute or relative to `output`. If there are val but
    no test videos, test.csv is a copy of val.csv, because most people test on val; a test.csv that
    differs from val.csv is left alone. Raises UserError if a list reads back differently.
    """
    lines = {split: pairs for split, pairs in lines.items() if pairs}
    if "val" in lines and "test" not in lines and _test_is_val(output):
        lines["test"] = lines["val"]
    if names:
        _write(os.path.join(output, CLASSES), "".join(f"{name}\n" for name in names))
    with tempfile.TemporaryDirectory(prefix=".lists-", dir=output) as draft:
        for split, pairs in lines.items():
            _write(_list(draft, split), "".join(_line(*pair) for pair in pairs))
            _check(draft, split, pairs, output=output)
        for split in lines:
            os.replace(_list(draft, split), _list(output, split))
    return {split: len(lines[split]) for split in SPLITS if split in lines}


def _line(path: str, label: int) -> str:
    # A relative path may start with a character that has a meaning in a list, such as a quote.
    if not os.path.isabs(path) and not path[0].isalnum():
        path = f"./{path}"
    return f"{path}\n" if label == NO_LABEL else f"{path} {label}\n"


def _check(draft: str, split: str, pairs: list[tuple[str, int]], *, output: str) -> None:
    labelled = all(label != NO_LABEL for _path, label in pairs)
    records = kinetics.read_index(draft, split, path_prefix=output, labelled=labelled)
    found = [(record.path, record.label) for record in records]
    if found != [(resolve_path(path, folder=output), label) for path, label in pairs]:
        raise UserError(
            f"{split}.csv must read back as what was written, got {len(found)} of {len(pairs)} "
            "lines, or other ones: a path holds what a line of a list cannot."
        )


def _test_is_val(output: str) -> bool:
    """Return whether the test list of `output` is missing or a copy of its val list."""
    if not os.path.isfile(_list(output, "test")):
        return True
    if not os.path.isfile(_list(output, "val")):
        return False
    contents = []
    for split in ("test", "val"):
        with open(_list(output, split), "rb") as file:
            contents.append(file.read())
    return contents[0] == contents[1]


def _list(folder: str, split: str) -> str:
    return os.path.join(folder, f"{split}.csv")


def _tidy(name: str) -> str:
    # One line of classes.txt: the name of a folder may hold a line break.
    return " ".join(name.encode("utf-8", "replace").decode().split())


def _write(path: str, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode("utf-8")))
