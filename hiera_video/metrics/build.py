"""From the files of this folder to the figures that every validation and test reports."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from hiera_video import metrics
from hiera_video.utils.lookup import module_names, public_functions

_TAKES = ("scores_NK", "labels_N")


def measure_all(scores_NK: np.ndarray, labels_N: np.ndarray) -> dict[str, float]:
    """Return the figure of each metric, by the name of its function.

    A metric is a public function in a file of this folder that can be called with `scores_NK`, a
    float32 array `[N, K]`, and `labels_N`, an int64 array `[N]`, and that returns a number.
    """
    (folder,) = metrics.__path__
    found: dict[str, float] = {}
    for name in module_names(folder, taking=_TAKES):
        module = importlib.import_module(f"{metrics.__name__}.{name}")
        for metric_name, metric in public_functions(module).items():
            if _is_metric(metric):
                found[metric_name] = float(metric(scores_NK=scores_NK, labels_N=labels_N))
    return found


def _is_metric(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(**dict.fromkeys(_TAKES))
    except TypeError:
        return False
    return True
