"""Predictions as text on standard output: tables, json or csv."""

import csv
import sys
from collections.abc import Iterable, Sequence

import simplejson

from hiera_video.inference.predictor import ClassScore, Prediction
from hiera_video.inference.windows import Window
from hiera_video.utils.text import printable

FORMATS = ("table", "json", "csv")
_BAR = 20  # characters of a full bar


def print_windows(windows: Iterable[Window], form: str, top_k: int) -> None:
    """Print windows as they come: one line of text or json each; for csv one line per class."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if form == "csv":
        writer.writerow(["start_sec", "end_sec", "rank", "label", "name", "score"])
    for window in windows:
        top = window.prediction.top(top_k)
        start, end = round(window.start_sec, 3), round(window.end_sec, 3)
        if form == "csv":
            for rank, one in enumerate(top, 1):
                writer.writerow([start, end, rank, one.label, _exact(one.name), f"{one.score:.6f}"])
        elif form == "json":
            entry = {"start_sec": start, "end_sec": end, "predictions": _as_plain(top)}
            print(simplejson.dumps(entry))
        else:
            names = ", ".join(f"{printable(one.name)} {100 * one.score:.1f} %" for one in top)
            print(f"{start:8.2f} - {end:.2f} s  {names}")
        sys.stdout.flush()


class Printer:
    """Prints predictions as they come: as tables, as one json list or as one csv."""

    def __init__(self, form: str, top_k: int) -> None:
        self._form = form
        self._top_k = top_k
        self._first = True
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        if form == "csv":
            self._writer.writerow(["path", "rank", "label", "name", "score"])

    def show(self, found: Prediction) -> None:
        """Print a video's classes."""
        top = found.top(self._top_k)
        if self._form == "csv":
            for rank, one in enumerate(top, 1):
                row = [_exact(found.path), rank, one.label, _exact(one.name), f"{one.score:.6f}"]
                self._writer.writerow(row)
        elif self._form == "json":
            entry = {"path": found.path, "predictions": _as_plain(top)}
            print(("[" if self._first else ",") + "\n  " + simplejson.dumps(entry), end="")
        else:
            print(_table(found, self._top_k))
        self._first = False
        sys.stdout.flush()

    def close(self) -> None:
        """Print what ends the output: the bracket of a json list."""
        if self._form == "json":
            print("[]" if self._first else "\n]")


def _exact(name: str) -> str:
    """Return a name for a csv: unchanged for a program, printable on a terminal."""
    return printable(name) if sys.stdout.isatty() else name


def _as_plain(top: Sequence[ClassScore]) -> list[dict[str, object]]:
    """Return classes as plain types."""
    return [{**one._asdict(), "score": round(one.score, 6)} for one in top]


def _table(found: Prediction, top_k: int) -> str:
    """Return a video's classes, one line each with a bar."""
    top = [(printable(one.name), one.score) for one in found.top(top_k)]
    width = max(len(name) for name, _ in top)
    lines = [
        f"  {name:{width}}  {100 * score:5.1f} %  {'#' * round(_BAR * score)}".rstrip()
        for name, score in top
    ]
    return "\n".join([printable(found.path), *lines])
