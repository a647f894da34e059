"""Which mask units the encoder sees: one public function per strategy, named by MASK.STRATEGY.

All take the unit grid (8, 7, 7) of 16x224 clips, or (7, 7) of images, and the share of units to
hide, and return a fresh draw for each clip with the same number of visible units in all of them.
Random numbers come from the CPU generator given (None: PyTorch's own), so that a seed means the
same masks on every device.

Shape suffixes: B clips, U mask units (row-major over the grid), V visible ones, S spatial units of
one time step; True = visible.
"""

from collections.abc import Sequence
from math import prod

import torch

from hiera_video.utils.errors import UserError


def random(
    grid: Sequence[int], *, num_clips: int, ratio: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw units anywhere in space and time, as published (space-time agnostic); `visible_BU`.

    floor(U * (1 - ratio)) units are visible, at least 1: the published count.
    """
    _check_ratio(ratio)
    num_units = prod(grid)
    # The small number keeps what floating point makes of 10 * (1 - 0.9) from being rounded down.
    num_visible = max(int(num_units * (1 - ratio) + 1e-6), 1)
    return _draw(num_clips, num_units, num_visible, generator)


def tube(
    grid: Sequence[int], *, num_clips: int, ratio: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw one spatial pattern and keep it through all time (VideoMAE, arXiv 2203.12602); `[B, U]`.

    As near to the ratio as whole tubes allow, at least 1 tube: 5 of 49 at 0.9. What moves out of a
    visible tube cannot be looked up in another frame. For images the same as `random`, but for the
    rounding.
    """
    _check_ratio(ratio)
    times, places = (grid[0], grid[1:]) if len(grid) == 3 else (1, grid)
    num_places = prod(places)
    visible_BS = _draw(num_clips, num_places, _nearest(num_places, ratio), generator)
    return visible_BS[:, None].expand(-1, times, -1).flatten(1)


def frame(
    grid: Sequence[int], *, num_clips: int, ratio: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw whole time steps; `visible_BU`. As near to the ratio as whole steps allow, at least 1.

    Source: the frame-only masking of MAE-ST (arXiv 2205.09113, figure 3).

    Raises:
        UserError: the grid is an image's, which has no time.
    """
    _check_ratio(ratio)
    if len(grid) != 3:
        raise UserError("MASK.STRATEGY must be 'random' or 'tube' for images, got 'frame'.")
    visible_BT = _draw(num_clips, grid[0], _nearest(grid[0], ratio), generator)
    return visible_BT.repeat_interleave(prod(grid[1:]), dim=1)


def _nearest(number: int, ratio: float) -> int:
    return min(max(round(number * (1 - ratio)), 1), number)


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio < 1:
        raise UserError(f"the mask ratio must be at least 0 and below 1, got {ratio}. Try 0.9.")


def _draw(
    num_rows: int, num_columns: int, num_true: int, generator: torch.Generator | None
) -> torch.Tensor:
    """Return bool `[num_rows, num_columns]` with `num_true` True in each row, on the CPU."""
    noise = torch.rand(num_rows, num_columns, generator=generator, device="cpu")
    chosen = noise.argsort(dim=1)[:, :num_true]
    return torch.zeros(num_rows, num_columns, dtype=torch.bool, device="cpu").scatter_(
        1, chosen, True
    )
