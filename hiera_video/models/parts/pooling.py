"""Pooling attention of MViTv2 and its simplifications, which end at the block of Hiera.

Source: MViTv2 (Li et al., CVPR 2022, arXiv 2112.01526, section 4.1); the simplifications are those
of Hiera (Ryali et al., ICML 2023, table 1).

Shape suffixes: B clips, N tokens with E extra ones first (a class token), D channels, H heads,
Q queries, K keys. X is the dimensions of a token grid, `THW` or `HW`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from hiera_video.models.parts.layers import NORM_EPS, DropPath, Mlp, attend


@dataclass(frozen=True, slots=True)
class PoolingPlan:
    """What one block pools, and how.

    Strides are in tokens, along each dimension; `kv_stride` is None if attention within mask units
    replaces the pooling of keys and values. With `overlap`, kernels have 3 tokens along each
    dimension and skip connections one more than their stride; without, kernels are strides.
    `every` also pools with stride 1. `convolve` pools attention's inputs by depthwise convolutions
    and norms, not by maxima.
    """

    q_stride: tuple[int, ...]
    kv_stride: tuple[int, ...] | None
    overlap: bool
    every: bool
    convolve: bool
    relative_positions: bool
    query_residual: bool


class Layout(NamedTuple):
    """How the tokens of a sequence lie: `units` grids of size `shape`, after `extra` other tokens.

    Pools do not cross from one grid to another. With `local`, neither does attention.
    """

    units: int
    shape: tuple[int, ...]
    extra: int = 0
    local: bool = False

    def pooled(self, stride: Sequence[int]) -> "Layout":
        """Return the layout after a pooling."""
        shape = tuple(-(-size // s) for size, s in zip(self.shape, stride, strict=True))
        return self._replace(shape=shape)


class Pool(nn.Module):
    """Pool the grid tokens of a sequence, and leave the extra tokens as they are.

    With `head_dim`, a depthwise convolution that all heads share, and then a norm of each head, of
    the extra tokens as well. Otherwise, a maximum.
    """

    def __init__(
        self, *, kernel: Sequence[int], stride: Sequence[int], head_dim: int | None = None
    ) -> None:
        super().__init__()
        self.kernel, self.stride = tuple(kernel), tuple(stride)
        self.padding = tuple(k // 2 if k != s else 0 for k, s in zip(kernel, stride, strict=True))
        self.head_dim = head_dim
        if head_dim:
            bound = prod(kernel) ** -0.5  # PyTorch's own for a depthwise convolution
            weight = torch.empty(head_dim, 1, *kernel).uniform_(-bound, bound)
            self.weight = nn.Parameter(weight)
            self.norm = nn.LayerNorm(head_dim, eps=NORM_EPS)

    def forward(self, tokens_BND: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Return `[B, E + units * pooled grid, D]`."""
        extra_BED, grid_BND = tokens_BND.tensor_split([layout.extra], dim=1)
        grid_BUXD = grid_BND.unflatten(1, (layout.units, *layout.shape))
        if self.head_dim is None and self.kernel == self.stride:
            pooled_BND = self._tiles(grid_BUXD)
        else:
            pooled_BND = self._overlapping(grid_BUXD, self.head_dim or grid_BUXD.shape[-1])
        if layout.extra:
            pooled_BND = torch.cat([extra_BED, pooled_BND], 1)
        if self.head_dim is None:
            return pooled_BND
        normed_BND: torch.Tensor = self.norm(pooled_BND.unflatten(-1, (-1, self.head_dim))).flatten(
            -2
        )
        return normed_BND

    def _tiles(self, grid_BUXD: torch.Tensor) -> torch.Tensor:
        """Return the maximum of each tile of `stride` tokens; nothing is copied."""
        for dim, step in enumerate(self.stride):  # each dimension becomes (tiles, step)
            grid_BUXD = grid_BUXD.unflatten(2 + 2 * dim, (-1, step))
        dims = [3 + 2 * dim for dim in range(len(self.stride))]
        return grid_BUXD.amax(dims).flatten(1, -2)

    def _overlapping(self, grid_BUXD: torch.Tensor, channels: int) -> torch.Tensor:
        clips, units, *_ = grid_BUXD.shape
        folded = grid_BUXD.unflatten(-1, (-1, channels)).movedim((-2, -1), (2, 3)).flatten(0, 2)
        if self.head_dim:
            convolve: Any = {2: F.conv2d, 3: F.conv3d}[len(self.stride)]
            pooled = convolve(
                folded, self.weight, stride=self.stride, padding=self.padding, groups=channels
            )
        else:
            pool: Any = {2: F.max_pool2d, 3: F.max_pool3d}[len(self.stride)]
            pooled = pool(folded, self.kernel, stride=self.stride, padding=self.padding)
            pooled = pooled.to(folded.dtype)  # autocast on a CPU pools videos in float32
        unfolded = pooled.unflatten(0, (clips, units, -1)).movedim((2, 3), (-2, -1))
        tokens_BND: torch.Tensor = unfolded.flatten(-2).flatten(1, -2)
        return tokens_BND


class RelativePositions(nn.Module):
    """Decomposed relative positions: a bias of attention for the distance along each dimension.

    The bias of a query and a key is the sum over the dimensions of the query's product with an
    embedding of their distance (MViTv2, section 4.1, equation 4). `q_shape` and `k_shape` are the
    token grids of queries and keys.
    """

    def __init__(self, head_dim: int, *, q_shape: Sequence[int], k_shape: Sequence[int]) -> None:
        super().__init__()
        self.q_shape, self.k_shape = tuple(q_shape), tuple(k_shape)
        self.tables = nn.ParameterList()
        for dim, (queries, keys) in enumerate(zip(q_shape, k_shape, strict=True)):
            table = nn.Parameter(torch.zeros(2 * max(queries, keys) - 1, head_dim))
            nn.init.trunc_normal_(table, std=0.02)
            self.tables.append(table)
            self.register_buffer(f"distance_{dim}", _distances(queries, keys), persistent=False)

    def forward(self, query_BHQD: torch.Tensor) -> torch.Tensor:
        """Return the bias `[B, H, Q, K]` of the grid tokens."""
        grid = query_BHQD.unflatten(2, self.q_shape)
        dims = len(self.q_shape)
        queries = "tyx"[-dims:]
        bias: Any = 0.0
        for dim, table in enumerate(self.tables):
            distances = self.get_buffer(f"distance_{dim}")
            equation = f"bh{queries}d,{queries[dim]}kd->bh{queries}k"
            along = torch.einsum(equation, grid, table[distances].to(grid.dtype))
            shape = [1] * dims
            shape[dim] = self.k_shape[dim]
            bias = bias + along.unflatten(-1, shape)
        bias_BHQK: torch.Tensor = bias.flatten(2, 1 + dims).flatten(3)
        return bias_BHQK


def _distances(queries: int, keys: int) -> torch.Tensor:
    """Return the index of the embedding for each query and key, int64 `[queries, keys]`.

    Positions of the coarser grid count in steps of the finer one.
    """
    q_step, k_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    places_Q, places_K = torch.arange(queries) * q_step, torch.arange(keys) * k_step
    return (places_Q[:, None] - places_K + (keys - 1) * k_step).long()


class PoolingAttention(nn.Module):
    """Self-attention that pools its queries, keys and values."""

    def __init__(
        self, dim: int, dim_out: int, *, num_heads: int, plan: PoolingPlan, grid: Sequence[int]
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.plan = plan
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)
        kv_stride = plan.kv_stride or (1,) * len(plan.q_stride)
        head_dim = dim_out // num_heads
        self.pool_q = _pool(plan.q_stride, plan, head_dim)
        self.pool_k = _pool(kv_stride, plan, head_dim) if plan.kv_stride else None
        self.pool_v = _pool(kv_stride, plan, head_dim) if plan.kv_stride else None
        self.relative_positions = None
        if plan.relative_positions:
            whole = Layout(1, tuple(grid))
            self.relative_positions = RelativePositions(
                head_dim,
                q_shape=whole.pooled(plan.q_stride).shape,
                k_shape=whole.pooled(kv_stride).shape,
            )

    def forward(self, tokens_BND: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Return the update of the tokens, pooled as the queries are."""
        query, key, value = self.qkv(tokens_BND).chunk(3, dim=-1)
        query = self.pool_q(query, layout) if self.pool_q else query
        key = self.pool_k(key, layout) if self.pool_k else key
        value = self.pool_v(value, layout) if self.pool_v else value
        windows = layout.units if layout.local else 1
        query, key, value = (
            part.unflatten(1, (windows, -1)).flatten(0, 1).unflatten(-1, (self.num_heads, -1))
            for part in (query, key, value)
        )
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        if self.relative_positions is None:
            mixed = attend(query, key, value)
        else:
            bias = self.relative_positions(query[:, :, layout.extra :])
            bias = F.pad(bias, (layout.extra, 0, layout.extra, 0))
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
            if torch.compiler.is_compiling():
                # The exporter to ONNX replaces attention with a bias by one whose output has
                # another memory layout, which a view recorded below would not fit.
                mixed = mixed.clone(memory_format=torch.contiguous_format)
        if self.plan.query_residual and layout.extra:
            mixed = mixed + F.pad(query[:, :, layout.extra :], (0, 0, layout.extra, 0))
        elif self.plan.query_residual:
            mixed = mixed + query
        update_BND: torch.Tensor = self.proj(
            mixed.transpose(1, 2).flatten(2).unflatten(0, (-1, windows)).flatten(1, 2)
        )
        return update_BND


def _pool(stride: Sequence[int], plan: PoolingPlan, head_dim: int) -> Pool | None:
    """Return the pool of attention's inputs; None if there is nothing to pool."""
    if prod(stride) == 1 and not (plan.every and plan.overlap):
        return None
    kernel = [3] * len(stride) if plan.overlap else stride
    return Pool(kernel=kernel, stride=stride, head_dim=head_dim if plan.convolve else None)


class PoolingBlock(nn.Module):
    """Pre-norm transformer block with pooling attention; weights are named as in `HieraBlock`."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        *,
        num_heads: int,
        plan: PoolingPlan,
        grid: Sequence[int],
        mlp_ratio: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = PoolingAttention(dim, dim_out, num_heads=num_heads, plan=plan, grid=grid)
        self.norm2 = nn.LayerNorm(dim_out, eps=NORM_EPS)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)
        self.pool_skip = None
        if prod(plan.q_stride) > 1:
            kernel = [s + (plan.overlap and s > 1) for s in plan.q_stride]
            self.pool_skip = Pool(kernel=kernel, stride=plan.q_stride)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, tokens_BND: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Return `[B, E + pooled tokens, dim_out]`."""
        skip_BND = tokens_BND
        if self.proj is not None:
            skip_BND = self.proj(self.norm1(tokens_BND))
        if self.pool_skip is not None:
            skip_BND = self.pool_skip(skip_BND, layout)

        def attention(inputs_BND: torch.Tensor) -> torch.Tensor:
            update_BND: torch.Tensor = self.attn(self.norm1(inputs_BND), layout)
            return update_BND

        def mlp(inputs_BND: torch.Tensor) -> torch.Tensor:
            update_BND: torch.Tensor = self.mlp(self.norm2(inputs_BND))
            return update_BND

        tokens_BND = self.drop_path(skip_BND, tokens_BND, attention)
        sum_BND: torch.Tensor = self.drop_path(tokens_BND, tokens_BND, mlp)
        return sum_BND
