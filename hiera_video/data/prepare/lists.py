"""Writes train.csv, val.csv, test.csv and classes.txt, and reads them back before they count."""

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
    """Return the class names of a file, one per line, by number."""
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
    """Return the class names by number; None where there are none.

    They are those of `classes_file`; or of the source, where it numbers its classes itself; or of
    `output`, from an earlier run, if that has all of them; or the source's names in alphabetical
    order. Raises UserError for a class that `classes_file` lacks, and where the numbers would
    contradict a list in `output` that this run does not write.
    """
    labels = {entry.label for entry in source.entries} - {None}
    named = sorted(label for label in labels if isinstance(label, str))
    if named:
        # A class without a video at hand has its number too.
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
        others = []  # it will be val again
    if before and before != names and others:
        raise UserError(
            f"OUTPUT must keep the class numbers of its {others[0]}.csv, got other classes than "
            f"its {CLASSES}. Try SOURCE with all splits, or another OUTPUT."
        )
    return names


def label_numbers(entries: Iterable[Entry], names: list[str] | None) -> list[int]:
    """Return the number of each entry's class; NO_LABEL where it has none."""
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

    lines: (path, label) by split; a path is absolute or relative to `output`. Where val is written
    and test is not, test.csv is val again, as most test on it, unless a test.csv of its own is
    there. Raises UserError where what was written would be read as something else.
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
    # A relative path may begin with what a list takes for something else, such as a quote.
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
    """Say whether `output` has no test list that is more than its val list again."""
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
    # A line of classes.txt; a folder's name may hold a line break.
    return " ".join(name.encode("utf-8", "replace").decode().split())


def _write(path: str, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode("utf-8")))
