"""Random draws that the masking strategies share."""

import torch

from hiera_video.utils.errors import UserError


def nearest(number: int, ratio: float) -> int:
    """Return the number of visible parts of `number` that is nearest to the ratio, at least 1."""
    return min(max(round(number * (1 - ratio)), 1), number)


def check_ratio(ratio: float) -> None:
    """Raise a UserError unless 0 <= ratio < 1."""
    if not 0 <= ratio < 1:
        raise UserError(f"the mask ratio must be at least 0 and below 1, got {ratio}. Try 0.9.")


def draw(
    num_rows: int, num_columns: int, num_true: int, generator: torch.Generator | None
) -> torch.Tensor:
    """Return bool `[num_rows, num_columns]` with `num_true` True in each row, on the CPU."""
    noise = torch.rand(num_rows, num_columns, generator=generator, device="cpu")
    chosen = noise.argsort(dim=1)[:, :num_true]
    return torch.zeros(num_rows, num_columns, dtype=torch.bool, device="cpu").scatter_(
        1, chosen, True
    )
