"""The layers of Hiera: patch embedding, mask unit attention, block, head, stochastic depth.

Shape suffixes: B clips, U mask units (1 if attention is global), N tokens of one window,
D channels, H heads, K classes. X is the dimensions of a clip, `CTHW` or `CHW`; in `DropPath`, X is
all dimensions after the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hiera_video.utils.errors import UserError

NORM_EPS = 1e-6  # the published models' value
# CUDA's fused attention maps the batch to a grid dimension with this limit (PyTorch issue 146704).
# 168 clips of 392 mask units exceed it.
MAX_WINDOWS = 65535


class PatchEmbed(nn.Module):
    """Embed overlapping patches as tokens with one strided 2-D or 3-D convolution."""

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        *,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
    ) -> None:
        super().__init__()
        convolution: Any = {2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
        self.proj = convolution(
            in_chans, embed_dim, tuple(kernel), stride=tuple(stride), padding=tuple(padding)
        )

    def forward(self, clips_BX: torch.Tensor) -> torch.Tensor:
        """Embed clips; return `tokens_BND` in row-major order of the token grid."""
        tokens_BND: torch.Tensor = self.proj(clips_BX).flatten(2).transpose(1, 2)
        return tokens_BND

    def project(self, blocks_MX: torch.Tensor) -> torch.Tensor:
        """Embed M blocks of pixels that are already padded; return their tokens `[M, D, ...]`."""
        convolve = {4: F.conv2d, 5: F.conv3d}[blocks_MX.ndim]
        return convolve(blocks_MX, self.proj.weight, self.proj.bias, stride=self.proj.stride)


def max_pool(tokens_BUND: torch.Tensor, size: int) -> torch.Tensor:
    """Max-pool each group of `size` consecutive tokens; return `[B, U, N / size, D]`."""
    if size == 1:
        return tokens_BUND
    runs_BUNSD = tokens_BUND.unflatten(2, (-1, size))
    # `max` and `amax` return the same values. `amax` has the faster forward pass, by far on a CPU.
    # `max` has the faster backward pass: it sends the gradient to one maximum, while `amax` splits
    # it among equal tokens.
    if torch.is_grad_enabled() and tokens_BUND.requires_grad:
        largest_BUND: torch.Tensor = runs_BUNSD.max(3).values
    else:
        largest_BUND = runs_BUNSD.amax(3)
    return largest_BUND


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Run fused attention on `[windows, H, N, D]`, in parts of at most MAX_WINDOWS windows."""
    if query.shape[0] <= MAX_WINDOWS:
        return F.scaled_dot_product_attention(query, key, value)
    parts = zip(*(part.split(MAX_WINDOWS) for part in (query, key, value)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])


class MaskUnitAttention(nn.Module):
    """Multi-head self-attention within each window, with optional max-pooling of the queries.

    The shape of the input sets the windows: tokens `[B, U, N, D]` attend within each of the U
    windows, so U = 1 is global attention.
    """

    def __init__(self, dim: int, dim_out: int, *, num_heads: int, q_pool_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_pool_size = q_pool_size
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, tokens_BUND: torch.Tensor) -> torch.Tensor:
        """Return `[B, U, N / q_pool_size, dim_out]`."""
        B, U, _, _ = tokens_BUND.shape
        query, key, value = self.qkv(tokens_BUND).chunk(3, dim=-1)
        # Fold the windows into the batch. scaled_dot_product_attention has fused kernels for 4-D
        # input only; for 5-D input it silently falls back to the slow kernel.
        query, key, value = (
            part.flatten(0, 1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (max_pool(query, self.q_pool_size), key, value)
        )
        mixed = attend(query, key, value)
        update_BUND: torch.Tensor = self.proj(mixed.transpose(1, 2).flatten(2).unflatten(0, (B, U)))
        return update_BUND


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, tokens_BUND: torch.Tensor) -> torch.Tensor:
        """Return the update of the tokens, in the shape of the input."""
        update_BUND: torch.Tensor = self.fc2(self.act(self.fc1(tokens_BUND)))
        return update_BUND


class HieraBlock(nn.Module):
    """Pre-norm transformer block; at a stage change it widens the tokens and may pool them.

    If the width changes, the skip path is max-pool(Linear(LN(x))). Attention pools its queries the
    same way ([P] figure 3): each `q_pool_size` tokens become one.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        *,
        num_heads: int,
        q_pool_size: int,
        mlp_ratio: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.q_pool_size = q_pool_size
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = MaskUnitAttention(dim, dim_out, num_heads=num_heads, q_pool_size=q_pool_size)
        self.norm2 = nn.LayerNorm(dim_out, eps=NORM_EPS)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)
        self.changes_width = dim != dim_out

    def forward(self, tokens_BUND: torch.Tensor) -> torch.Tensor:
        """Return `[B, U, N / q_pool_size, dim_out]`."""
        if self.changes_width:
            normed = self.norm1(tokens_BUND)
            skip_BUND = max_pool(self.proj(normed), self.q_pool_size)
            tokens_BUND = self._add(skip_BUND, normed, self.attn)
        else:
            tokens_BUND = self._add(tokens_BUND, tokens_BUND, self._normed_attn)
        return self._add(tokens_BUND, tokens_BUND, self._normed_mlp)

    def _add(
        self,
        skip_BUND: torch.Tensor,
        inputs_BUND: torch.Tensor,
        branch: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        if self.drop_path.is_on:
            sum_BUND: torch.Tensor = self.drop_path(skip_BUND, inputs_BUND, branch)
            return sum_BUND
        # Outside DropPath: a tracer of modules would attribute the branch to it.
        return skip_BUND + branch(inputs_BUND)

    def _normed_attn(self, tokens_BUND: torch.Tensor) -> torch.Tensor:
        update_BUND: torch.Tensor = self.attn(self.norm1(tokens_BUND))
        return update_BUND

    def _normed_mlp(self, tokens_BUND: torch.Tensor) -> torch.Tensor:
        update_BUND: torch.Tensor = self.mlp(self.norm2(tokens_BUND))
        return update_BUND


class Head(nn.Module):
    """Dropout and a linear layer; returns logits both in training and in evaluation.

    If `num_classes` is 0, an identity replaces the linear layer.

    Raises:
        UserError: `num_classes` is negative.
    """

    def __init__(self, dim: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        if num_classes < 0:
            raise UserError(
                f"num_classes must be at least 0 (0: no classifier), got {num_classes}. Try 400."
            )
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def forward(self, pooled_BD: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return `logits_BK`; with `pre_logits`, the input of the linear layer."""
        pooled_BD = self.dropout(pooled_BD)
        return pooled_BD if pre_logits else self.projection(pooled_BD)

    def rescale(self, factor: float) -> None:
        """Multiply the weights and biases of the linear layer by `factor`, in place."""
        with torch.no_grad():
            for parameter in self.projection.parameters():
                parameter.mul_(factor)


class DropPath(nn.Module):
    """Stochastic depth: skip a residual branch for randomly chosen clips during training.

    The branch is scaled up for the other clips, so its mean stays the same. In evaluation, or if
    `drop_prob` is 0, no clip skips the branch (see `is_on`).

    Args:
        drop_prob: the probability that a clip skips the branch, in [0, 1).

    Raises:
        UserError: `drop_prob` is not in that range.

    Source: Huang et al., arXiv 1603.09382, section 3. The scaling at training time is that of
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
        """Return `skip_BX + branch(inputs_BX)`; for dropped clips, return `skip_BX` alone.

        `branch` must process each clip independently: it may be called with a part of the batch.
        """
        if not self.is_on:
            return skip_BX + branch(inputs_BX)
        num_clips, scale = len(skip_BX), 1 / (1 - self.drop_prob)
        kept_B = torch.rand(num_clips, device=skip_BX.device) >= self.drop_prob
        if skip_BX.device.type != "cpu" or torch.compiler.is_compiling():
            # Compute the branch for all clips. Selecting the kept ones needs their number on the
            # CPU: that synchronises with the GPU, and recompiles for each number.
            update_BX = branch(inputs_BX)
            weights_BX = kept_B.to(update_BX.dtype).view(-1, *[1] * (update_BX.ndim - 1))
            return torch.add(skip_BX, update_BX * weights_BX, alpha=scale)
        if kept_B.all():
            return torch.add(skip_BX, branch(inputs_BX), alpha=scale)
        if not kept_B.any():
            # Compute one clip with weight 0: other processes wait for a gradient of each weight.
            kept_B[0], scale = True, 0.0
        indices = kept_B.nonzero().flatten()
        update_BX = branch(inputs_BX.index_select(0, indices)).to(skip_BX.dtype)
        return skip_BX.index_add(0, indices, update_BX, alpha=scale)

    def extra_repr(self) -> str:
        """Return `drop_prob` for the module's repr."""
        return f"{self.drop_prob}"
