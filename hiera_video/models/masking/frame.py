"""Hide whole time steps.

Shape suffixes: B clips, U mask units (row-major over the grid), T time steps; True = visible.
"""

from collections.abc import Sequence
from math import prod

import torch

from hiera_video.models.masking._draw import check_ratio, draw, nearest
from hiera_video.utils.errors import UserError


def frame(
    grid: Sequence[int], *, num_clips: int, ratio: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw whole time steps; `visible_BU`. As near to the ratio as whole steps allow, at least 1.

    Source: the frame-only masking of MAE-ST (arXiv 2205.09113, figure 3).

    Raises:
        UserError: the grid is an image's, which has no time.
    """
    check_ratio(ratio)
    if len(grid) != 3:
        raise UserError("MASK.STRATEGY must be 'random' or 'tube' for images, got 'frame'.")
    visible_BT = draw(num_clips, grid[0], nearest(grid[0], ratio), generator)
    return visible_BT.repeat_interleave(prod(grid[1:]), dim=1)
