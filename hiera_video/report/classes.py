"""How a test went class by class: accuracies, confusions, mistakes with their pictures.

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

MAX_CELLS_SIDE = 20  # classes whose matrix is a table of numbers; of more it is a picture
MAX_LISTED = 20  # classes that are listed one and all; of more the best and the worst
NUM_BEST, NUM_PAIRS = 8, 10


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class: its videos in the test, the share of them found, and what most others went to."""

    name: str
    num_videos: int
    accuracy: float
    taken_for: str
    num_taken: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Videos of one class that were taken for another, and their share of that class's."""

    true_class: str
    predicted_class: str
    number: int
    share: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the matrix; `opacity` in [0, 1]."""

    number: int
    share: float
    opacity: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """The matrix, as rows of cells or, of many classes, as a picture; and the commonest mistakes.

    `address` is empty where there are `rows`.
    """

    names: list[str]
    rows: list[list[Cell]]
    address: str
    pairs: list[Pair]


def class_rows(scores: Scores) -> list[ClassRow]:
    """Return the classes that the test has videos of, the best first."""
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
    """Return the confusion matrix for the page."""
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
    """A mistake, the last two parts of its path, and a frame as a `data:` address."""

    mistake: Mistake
    file_name: str
    address: str | Missing


def pictured_mistakes(scores: Scores, number: int, *, backend: str | Decoding) -> list[Pictured]:
    """Return the surest mistakes, each with the middle frame of its video."""
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
