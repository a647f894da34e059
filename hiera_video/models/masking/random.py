"""Hide mask units anywhere in space and time, as published.

Shape suffixes: B clips, U mask units (row-major over the grid), True = visible.
"""

from collections.abc import Sequence
from math import prod

import torch

from hiera_video.models.masking._draw import check_ratio, draw


def random(
    grid: Sequence[int], *, num_clips: int, ratio: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw units anywhere in space and time, as published (space-time agnostic); `visible_BU`.

    floor(U * (1 - ratio)) units are visible, at least 1: the published count.
    """
    check_ratio(ratio)
    num_units = prod(grid)
    # The small number keeps what floating point makes of 10 * (1 - 0.9) from being rounded down.
    num_visible = max(int(num_units * (1 - ratio) + 1e-6), 1)
    return draw(num_clips, num_units, num_visible, generator)
