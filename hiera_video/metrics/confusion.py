"""The confusion matrix, the mean class accuracy, and a picture of the matrix.

Shape suffixes: N videos, K classes; a matrix KK has the true class in rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hiera_video.utils.fonts import font_file, usual_font
from hiera_video.utils.text import printable

_MAX_LETTERS = 40  # longer names would leave no room for the matrix


def confusion_matrix(
    predictions_N: np.ndarray, labels_N: np.ndarray, num_classes: int
) -> np.ndarray:
    """Count the videos of each true class (row) and predicted class: int64 `[K, K]`."""
    pairs = labels_N * num_classes + predictions_N
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_class_accuracy(confusion_KK: np.ndarray) -> float:
    """Return the mean accuracy of the classes that have videos, in [0, 1]."""
    totals_K = confusion_KK.sum(1)
    present_K = totals_K > 0
    if not present_K.any():
        return float("nan")
    return float((np.diag(confusion_KK)[present_K] / totals_K[present_K]).mean())


def save_confusion_png(
    path: str, confusion_KK: np.ndarray, class_names: Sequence[str] | None = None
) -> None:
    """Draw the matrix, with each row as fractions of its class; up to 60 classes are named.

    If no installed font has the letters of a name, the class is called by its number: `class 3`.
    """
    confusion_figure(confusion_KK, class_names).savefig(path, dpi=110)


def confusion_figure(confusion_KK: np.ndarray, class_names: Sequence[str] | None = None) -> Any:
    """Return the picture of `save_confusion_png` as a matplotlib Figure."""
    # The object interface draws without a display and without matplotlib's global state.
    from matplotlib.figure import Figure

    num_classes = len(confusion_KK)
    shares_KK = confusion_KK / np.maximum(confusion_KK.sum(1, keepdims=True), 1)
    side_inch = min(4 + 0.22 * num_classes, 18)
    figure = Figure(figsize=(side_inch, side_inch), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares_KK, cmap="viridis", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class", title="share of each true class")
    if num_classes <= 60:
        names = [printable(n) for n in class_names or map(str, range(num_classes))]
        files = [font_file(name) for name in names]
        shown = [_shown(name) if files[k] else f"class {k}" for k, name in enumerate(names)]
        # A name may hold dollar signs, between which matplotlib would read a formula.
        axes.set_xticks(range(num_classes), shown, rotation=90, parse_math=False)
        axes.set_yticks(range(num_classes), shown, parse_math=False)
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            for label, file in zip(labels, files, strict=True):
                label.set_fontproperties(Path(file or usual_font()))
    if num_classes <= 20:
        for row, column in np.ndindex(num_classes, num_classes):
            colour = "black" if shares_KK[row, column] > 0.6 else "white"
            count = int(confusion_KK[row, column])
            if count:
                axes.text(column, row, str(count), ha="center", va="center", color=colour)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _shown(name: str) -> str:
    return name if len(name) <= _MAX_LETTERS else name[: _MAX_LETTERS - 1] + "…"
