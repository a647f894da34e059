"""Stochastic depth, which on a CPU computes only what it keeps.

Shape suffixes: B clips, X what else a clip has.
"""

from collections.abc import Callable

import torch
from torch import nn

from hiera_video.utils.errors import UserError


class DropPath(nn.Module):
    """Add a residual branch for a random share of the clips, scaled so that its mean is the same.

    It has nothing to do in evaluation, or with `drop_prob` 0 (`is_on`).

    Args:
        drop_prob: the chance of a clip to be left as it is, [0, 1).

    Raises:
        UserError: `drop_prob` is not in that range.

    Source: Huang et al., arXiv 1603.09382, section 3; the scaling at training time is that of
    dropout.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise UserError(f"drop_path_rate must be at least 0 and below 1, got {drop_prob:g}.")
        self.drop_prob = drop_prob

    @property
    def is_on(self) -> bool:
        """Whether branches are dropped."""
        return self.training and self.drop_prob > 0

    def forward(
        self,
        skip_BX: torch.Tensor,
        inputs_BX: torch.Tensor,
        branch: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return `skip_BX + branch(inputs_BX)`, less the branch of dropped clips.

        `branch` must treat each clip by itself: it may be called with some of them only.
        """
        if not self.is_on:
            return skip_BX + branch(inputs_BX)
        num_clips, scale = len(skip_BX), 1 / (1 - self.drop_prob)
        kept_B = torch.rand(num_clips, device=skip_BX.device) >= self.drop_prob
        if skip_BX.device.type != "cpu" or torch.compiler.is_compiling():
            # How many are kept would have to be known here: a GPU would be waited for, and what is
            # compiled would be so again for each number.
            update_BX = branch(inputs_BX)
            weights_BX = kept_B.to(update_BX.dtype).view(-1, *[1] * (update_BX.ndim - 1))
            return torch.add(skip_BX, update_BX * weights_BX, alpha=scale)
        if kept_B.all():
            return torch.add(skip_BX, branch(inputs_BX), alpha=scale)
        if not kept_B.any():
            # One clip is computed for nothing: other processes wait for gradients of all weights.
            kept_B[0], scale = True, 0.0
        indices = kept_B.nonzero().flatten()
        update_BX = branch(inputs_BX.index_select(0, indices)).to(skip_BX.dtype)
        return skip_BX.index_add(0, indices, update_BX, alpha=scale)

    def extra_repr(self) -> str:
        """Say how many are dropped."""
        return f"{self.drop_prob}"
