"""Hide one spatial pattern through all time.

Shape suffixes: B clips, U mask units (row-major over the grid), S spatial units of one
time step; True = visible.
"""

from collections.abc import Sequence
from math import prod

import torch

from hiera_video.models.masking._draw import check_ratio, draw, nearest


def tube(
    grid: Sequence[int], *, num_clips: int, ratio: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw one spatial pattern and keep it through all time (VideoMAE, arXiv 2203.12602); `[B, U]`.

    As near to the ratio as whole tubes allow, at least 1 tube: 5 of 49 at 0.9. What moves out of a
    visible tube cannot be looked up in another frame. For images the same as `random`, but for the
    rounding.
    """
    check_ratio(ratio)
    times, places = (grid[0], grid[1:]) if len(grid) == 3 else (1, grid)
    num_places = prod(places)
    visible_BS = draw(num_clips, num_places, nearest(num_places, ratio), generator)
    return visible_BS[:, None].expand(-1, times, -1).flatten(1)
