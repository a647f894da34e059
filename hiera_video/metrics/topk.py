"""Top-k accuracy.

Shape suffixes: N videos, K classes.
"""

import numpy as np


def topk_accuracy(scores_NK: np.ndarray, labels_N: np.ndarray, k: int) -> float:
    """Return the fraction of videos, in [0, 1], whose label is among the k highest scores.

    A label counts if fewer than k classes score higher, or score the same and come before it. So a
    model that gives every class the same score is at chance and not at 1. With fewer than k classes
    the result is 1; without videos it is NaN.
    """
    if len(labels_N) == 0:
        return float("nan")
    own_N1 = scores_NK[np.arange(len(labels_N)), labels_N][:, None]
    earlier_NK = np.arange(scores_NK.shape[1])[None] < labels_N[:, None]
    ahead_N = ((scores_NK > own_N1) | ((scores_NK == own_N1) & earlier_NK)).sum(1)
    return float((ahead_N < k).mean())
