"""Masking strategies: one file each, with a function of the same name, named by MASK.STRATEGY.

A strategy takes the unit grid, (8, 7, 7) of 16x224 clips or (7, 7) of images, and by keyword the
number of clips, the fraction of units to hide, and a CPU generator (None: PyTorch's own), so that a
seed means the same masks on every device. It returns bool `[B, U]`, True = visible: a fresh draw
for each clip, with the same number of visible units in all of them.
"""

from collections.abc import Callable

import torch

from hiera_video.models.masking.frame import frame
from hiera_video.models.masking.random import random
from hiera_video.models.masking.tube import tube
from hiera_video.utils.lookup import find_function, find_module

__all__ = ["find_strategy", "frame", "random", "tube"]

# What a strategy is called with besides the grid; the config looks for files with such a function.
STRATEGY_TAKES = ("num_clips", "ratio", "generator")


def find_strategy(name: str, *, key: str) -> Callable[..., torch.Tensor]:
    """Return the function of a strategy; `key` is the config key or option that named it.

    Raises:
        UserError: no file here is a strategy of that name.
    """
    module = find_module(__name__, name, key=key, taking=STRATEGY_TAKES)
    return find_function(module, name, key=key)
