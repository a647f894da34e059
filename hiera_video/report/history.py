"""Read the history of a training from the `json_stats` lines of stdout.log."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hiera_video.report.parts import Missing
from hiera_video.utils import io
from hiera_video.utils.read_json import parse_json

# (finished epochs, which may be fractional; value of a figure)
Points = list[tuple[float, float]]
_MARK = "json_stats: "
_ABSURD = 1e30  # larger values cannot be drawn, and no figure of a training is so large
_STOPPED = re.compile(r"^\[[^\]]*\] (stopped: .*)")
_VERSIONS = re.compile(r"^\[[^\]]*\] (hiera_video [^,]*, torch [^,]*)")


@dataclass(slots=True)
class History:
    """The figures of a training over epochs; a resumed run overwrites the epochs it repeats.

    `by_iteration`, `by_epoch` and `validations` hold the points of each figure in the `train_iter`,
    `train_epoch` and `val_epoch` lines. `num_broken` counts unreadable lines. `stopped` is the
    logged reason why the run ended early, if any.
    """

    max_epoch: int = 0
    by_iteration: dict[str, Points] = field(default_factory=dict)
    by_epoch: dict[str, Points] = field(default_factory=dict)
    validations: dict[str, Points] = field(default_factory=dict)
    num_broken: int = 0
    stopped: str = ""
    versions: str = ""

    @property
    def finished(self) -> float:
        """The number of finished epochs."""
        points = self.by_epoch.get("epoch_sec", [])
        return points[-1][0] if points else 0

    def last(self, of: Mapping[str, Points], figure: str) -> float | None:
        """Return the last value of a figure, or None."""
        return of[figure][-1][1] if of.get(figure) else None

    def total(self, figure: str) -> float | None:
        """Return the sum of a figure over the epochs, or None."""
        points = self.by_epoch.get(figure)
        return sum(value for _, value in points) if points else None


def read_history(path: str) -> History | Missing:
    """Read a run's stdout.log, counting and skipping broken lines."""
    if not io.is_file(path):
        return Missing(
            "There is no stdout.log in this folder: the run never began, or the file was removed."
        )
    history = History()
    # A full disk may leave bytes that are not text; reading must go on.
    with open(path, encoding="utf-8", errors="replace") as file:
        _read_lines(history, file)
    return history


def _read_lines(history: History, lines: Iterable[str]) -> None:
    for line in lines:
        _, mark, text = line.partition(_MARK)
        if not mark:
            if match := _STOPPED.match(line):
                history.stopped = match[1].strip()
            elif match := _VERSIONS.match(line):
                history.versions, history.stopped = match[1], ""  # a new start
            continue
        try:
            _add_line(history, parse_json(text))
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
            history.num_broken += 1


def _add_line(history: History, stats: Mapping[str, Any]) -> None:
    """Add the figures of one line to the history."""
    kind = stats["_type"]
    if kind not in {"train_iter", "train_epoch", "val_epoch"}:
        return
    epoch, history.max_epoch = _position(stats["epoch"])
    if kind == "train_iter":
        iteration, num_iterations = _position(stats["iter"])
        done = epoch - 1 + iteration / num_iterations
        _drop_from(history.by_epoch, done)
        _drop_from(history.validations, done)
        _add(history.by_iteration, done, stats)
    elif kind == "train_epoch":
        _drop_from(history.validations, epoch)
        _add(history.by_epoch, epoch, stats)
    else:
        _add(history.validations, epoch, stats)


def _position(text: str) -> tuple[int, int]:
    done, total = text.split("/")
    return int(done), int(total)


def _add(figures: dict[str, Points], x: float, stats: Mapping[str, Any]) -> None:
    for name, value in stats.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        points = figures.setdefault(name, [])
        _drop_from({name: points}, x)
        if abs(value) < _ABSURD:  # excludes infinity and NaN, too
            points.append((x, float(value)))


def _drop_from(figures: Mapping[str, Points], x: float) -> None:
    """Drop the points at `x` or later: a resumed run repeats them, and the repetition counts."""
    for points in figures.values():
        while points and points[-1][0] >= x:
            points.pop()
