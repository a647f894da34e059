"""Read the results of a test: its figures, every video's scores, and the worst mistakes.

Shape suffixes: N videos, K classes; a matrix KK has the true class in rows.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from hiera_video.checkpoints.run_folder import RESULTS_FILE
from hiera_video.metrics.confusion import confusion_matrix
from hiera_video.report.parts import Missing
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.read_json import parse_json

DEFAULT_SCORES_FILE = "test_scores.npz"
_VIEWS = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a test: paths and labels `[N]`, mean probabilities `[N, K]`, class names."""

    paths_N: np.ndarray
    labels_N: np.ndarray
    scores_NK: np.ndarray
    class_names: list[str]

    @property
    def predictions_N(self) -> np.ndarray:
        """The predicted class of each video."""
        return self.scores_NK.argmax(1)

    def confusion(self) -> np.ndarray:
        """Return the number of videos by true class (row) and predicted class (column)."""
        return confusion_matrix(self.predictions_N, self.labels_N, self.scores_NK.shape[1])


@dataclass(frozen=True, slots=True)
class Tested:
    """A test: `figures` from test_results.json (accuracies in percent) and the videos' scores."""

    figures: dict[str, Any]
    scores: Scores | Missing

    def number(self, name: str) -> float | None:
        """Return a figure, or None if it is missing or not a number."""
        value = self.figures.get(name)
        return value if _is_number(value) else None

    def by_views(self) -> list[tuple[int, int, float]]:
        """Return (clips, crops, top-1 in percent) for each measured number of views."""
        table = self.figures.get("top1_acc_by_views")
        found = []
        for name, top1 in table.items() if isinstance(table, dict) else ():
            match = _VIEWS.fullmatch(name)
            if match and _is_number(top1) and 0 <= top1 <= 100:
                found.append((int(match[1]), int(match[2]), float(top1)))
        return found

    def not_evaluated(self) -> list[tuple[str, str]]:
        """Return the path and the reason of each video without a score."""
        failures = self.figures.get("not_evaluated")
        listed = failures if isinstance(failures, list) else []
        return [
            (str(item.get("path", "")), str(item.get("reason", "")))
            for item in listed
            if isinstance(item, dict)
        ]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


@dataclass(frozen=True, slots=True)
class Mistake:
    """A video predicted as a wrong class; probabilities in [0, 1]."""

    path: str
    true_class: str
    predicted_class: str
    score: float
    true_score: float


def read_test(folder: str, scores_files: Sequence[str]) -> Tested | Missing:
    """Read the results of a test in `folder`; uses the first of `scores_files` that exists."""
    path = os.path.join(folder, RESULTS_FILE)
    if not io.is_file(path):
        return Missing(f"There is no {RESULTS_FILE} in this folder: no test has finished in it.")
    with io.open_file(path) as file:
        figures = parse_json(file.read())
    if not isinstance(figures, dict):
        raise UserError(f"{RESULTS_FILE} holds no figures")
    names = dict.fromkeys([*scores_files, DEFAULT_SCORES_FILE])
    found = [path for name in names if io.is_file(path := os.path.join(folder, name))]
    if not found:
        return Tested(figures, Missing(f"There is no {' or '.join(names)} in this folder."))
    try:
        return Tested(figures, _read_scores(found[0]))
    except Exception as error:  # numpy and zipfile may raise anything on a damaged file
        reason = f"{os.path.basename(found[0])} is damaged ({type(error).__name__}: {error})."
        return Tested(figures, Missing(reason))


def _read_scores(path: str) -> Scores:
    with np.load(path, allow_pickle=False) as arrays:
        paths_N, labels_N, scores_NK, names_K = (
            arrays[name] for name in ("paths", "labels", "scores", "class_names")
        )
    num_videos, num_classes = scores_NK.shape
    names = [str(name) for name in names_K]
    if len(names) != num_classes:  # names unknown: use the numbers
        names = [str(number) for number in range(num_classes)]
    if not len(paths_N) == len(labels_N) == num_videos > 0:
        raise ValueError("paths, labels and scores are not of the same videos")
    if labels_N.min() < 0 or labels_N.max() >= num_classes:
        raise ValueError("it holds labels outside its classes")
    return Scores(paths_N, labels_N.astype(np.int64), scores_NK, names)


def worst_mistakes(scores: Scores, number: int) -> list[Mistake]:
    """Return the mistakes with the highest scores, the most confident first."""
    predictions_N = scores.predictions_N
    everyone = np.arange(len(predictions_N))
    certainty_N = scores.scores_NK[everyone, predictions_N]
    wrong = np.flatnonzero(predictions_N != scores.labels_N)
    chosen = wrong[np.argsort(-certainty_N[wrong], kind="stable")[:number]]
    return [
        Mistake(
            path=str(scores.paths_N[video]),
            true_class=scores.class_names[scores.labels_N[video]],
            predicted_class=scores.class_names[predictions_N[video]],
            score=float(certainty_N[video]),
            true_score=float(scores.scores_NK[video, scores.labels_N[video]]),
        )
        for video in chosen
    ]
