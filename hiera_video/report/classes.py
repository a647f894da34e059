"""Analyse a test by class: accuracies, confusions, and mistakes with their pictures.

Shape suffixes: K classes; a matrix KK has the true class in rows.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from hiera_video.data.decoders import Decoding
from hiera_video.report.images import (
    jpeg_address,
    matrix_address,
    middle_frame,
    opacity,
    short_path,
)
from hiera_video.report.parts import Missing, attempt
from hiera_video.report.tested import Mistake, Scores, worst_mistakes

MAX_CELLS_SIDE = 20  # most classes for which the matrix is a table; with more it is a picture
MAX_LISTED = 20  # most classes that are all listed; of more, the best and the worst
NUM_BEST, NUM_PAIRS = 8, 10


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class: its test videos, its accuracy, and the class most of its mistakes went to."""

    name: str
    num_videos: int
    accuracy: float
    taken_for: str
    num_taken: int


@dataclass(frozen=True, slots=True)
class Pair:
    """The videos of `true_class` predicted as another class, and their share of its videos."""

    true_class: str
    predicted_class: str
    number: int
    share: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the matrix; `opacity` is in [0, 1]."""

    number: int
    share: float
    opacity: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """The confusion matrix and the most common mistakes.

    The matrix is in `rows`, or for many classes a picture at the `data:` URL `address`, which is
    otherwise empty.
    """

    names: list[str]
    rows: list[list[Cell]]
    address: str
    pairs: list[Pair]


def class_rows(scores: Scores) -> list[ClassRow]:
    """Return a row for each class with videos in the test, the best first."""
    confusion_KK = scores.confusion()
    totals_K = confusion_KK.sum(1)
    hits_K = np.diag(confusion_KK)
    others_KK = confusion_KK - np.diag(hits_K)
    favourites_K = others_KK.argmax(1)
    rows = [
        ClassRow(
            name=scores.class_names[k],
            num_videos=int(totals_K[k]),
            accuracy=float(hits_K[k] / totals_K[k]),
            taken_for=scores.class_names[favourites_K[k]] if others_KK[k].any() else "",
            num_taken=int(others_KK[k, favourites_K[k]]),
        )
        for k in np.flatnonzero(totals_K)
    ]
    return sorted(rows, key=lambda row: (-row.accuracy, row.name))


def confusion(scores: Scores) -> Confusion:
    """Make the confusion matrix for the page."""
    confusion_KK = scores.confusion()
    shares_KK = confusion_KK / np.maximum(confusion_KK.sum(1, keepdims=True), 1)
    names = scores.class_names
    rows: list[list[Cell]] = []
    if len(names) <= MAX_CELLS_SIDE:
        rows = [
            [Cell(int(n), float(s), float(opacity(s))) for n, s in zip(*pair, strict=True)]
            for pair in zip(confusion_KK, shares_KK, strict=True)
        ]
    mistakes_KK = confusion_KK - np.diag(np.diag(confusion_KK))
    commonest = np.argsort(-mistakes_KK, axis=None, kind="stable")[:NUM_PAIRS]
    pairs = [
        Pair(
            names[row], names[column], int(mistakes_KK[row, column]), float(shares_KK[row, column])
        )
        for row, column in zip(*np.unravel_index(commonest, mistakes_KK.shape), strict=True)
        if mistakes_KK[row, column]
    ]
    return Confusion(names, rows, "" if rows else matrix_address(shares_KK), pairs)


@dataclass(frozen=True, slots=True)
class Pictured:
    """A mistake, the last two parts of its path, and a frame as a `data:` URL."""

    mistake: Mistake
    file_name: str
    address: str | Missing


def pictured_mistakes(scores: Scores, number: int, *, backend: str | Decoding) -> list[Pictured]:
    """Return the most confident mistakes, each with the middle frame of its video."""
    return [
        Pictured(
            mistake,
            short_path(mistake.path),
            attempt("No picture", partial(_thumbnail, mistake.path, backend)),
        )
        for mistake in worst_mistakes(scores, number)
    ]


def _thumbnail(path: str, backend: str | Decoding) -> str:
    return jpeg_address(middle_frame(path, backend))
