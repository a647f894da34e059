"""How far a model's confidence is from its accuracy.

Shape suffixes: N videos, K classes.
"""

import numpy as np


def calibration_error(scores_NK: np.ndarray, labels_N: np.ndarray, num_bins: int = 15) -> float:
    """Return the expected calibration error, in [0, 1]: 0 if confidence equals accuracy.

    Videos are put into `num_bins` equal bins of their highest score. The error is the mean of
    |accuracy - confidence| over the bins, weighted by their numbers of videos; NaN without videos.

    Source: Guo et al., arXiv 1706.04599, section 2, with its 15 bins.
    """
    if len(labels_N) == 0:
        return float("nan")
    confidence_N = scores_NK.max(1).astype(np.float64)
    correct_N = scores_NK.argmax(1) == labels_N
    bins_N = np.clip(np.ceil(confidence_N * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins_N, weights=correct_N - confidence_N, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels_N))
