"""Compute the plan of each block of a Hiera from the sizes of its stages.

The plans are separate from the modules, so the model, its tests and the FLOPs report read the same
table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypedDict

from hiera_video.utils.errors import UserError


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The stage, sizes and attention of one block.

    `stage` counts from 0. `dim` and `dim_out` are the channels of input and output. The block pools
    each `q_pool_size` tokens to one. `unit_tokens` is the number of tokens of a mask unit at the
    input. `local` is True for mask unit attention and False for global attention.
    """

    stage: int
    dim: int
    dim_out: int
    num_heads: int
    q_pool_size: int
    unit_tokens: int
    local: bool


def plan_blocks(
    *,
    embed_dim: int,
    num_heads: int,
    stages: Sequence[int],
    q_pool: int,
    q_stride: Sequence[int],
    mask_unit_size: Sequence[int],
    mask_unit_attn: Sequence[bool],
    dim_mul: float,
    head_mul: float,
) -> list[BlockPlan]:
    """Return the plan of every block in order (Ryali et al., section 3 and table 2).

    The first block of each later stage widens the channels; the first `q_pool` of these blocks also
    pool. Such a block still uses the attention of the stage before it: mask unit attention lags by
    one block.
    """
    plans: list[BlockPlan] = []
    dim, heads, unit_tokens = embed_dim, num_heads, prod(mask_unit_size)
    for stage, depth in enumerate(stages):
        for position in range(depth):
            enters = stage > 0 and position == 0
            dim_out = int(dim * dim_mul) if enters else dim
            heads = int(heads * head_mul) if enters else heads
            pool = prod(q_stride) if enters and stage <= q_pool else 1
            local = mask_unit_attn[stage - 1 if enters else stage]
            plans.append(BlockPlan(stage, dim, dim_out, heads, pool, unit_tokens, local))
            dim, unit_tokens = dim_out, unit_tokens // pool
    return plans


class FeatureInfo(TypedDict):
    """The output of a stage: its channels, its stride in pixels and the module that returns it."""

    num_chs: int
    reduction: int
    module: str


def stage_info(
    plans: Sequence[BlockPlan], *, stride: int, q_stride: int, q_pool: int
) -> list[FeatureInfo]:
    """Describe the output of each stage; `stride` is the patch stride in pixels."""
    ends = {plan.stage: index for index, plan in enumerate(plans)}  # the last block of a stage
    return [
        FeatureInfo(
            num_chs=plans[end].dim_out,
            reduction=stride * q_stride ** min(stage, q_pool),
            module=f"blocks.{end}",
        )
        for stage, end in ends.items()
    ]


def stage_indices(num_stages: int, indices: int | Sequence[int] | None) -> list[int]:
    """Return the numbers of the chosen stages in ascending order.

    `indices` is an int n for the last n stages, a list of stage numbers, or None for all stages.

    Raises:
        UserError: there is no such stage, or the choice is empty.
    """
    if indices is None:
        indices = num_stages
    if isinstance(indices, int):
        asked = list(range(num_stages - indices, num_stages)) if indices <= num_stages else []
    else:
        asked = list(indices)
    if not asked or not all(-num_stages <= stage < num_stages for stage in asked):
        raise UserError(
            f"indices must be 1 to {num_stages}, or a list of stages from {-num_stages} to "
            f"{num_stages - 1}, got {indices!r}. Try None for all stages."
        )
    return sorted({stage % num_stages for stage in asked})


def check_sizes(
    *,
    input_size: Sequence[int],
    patch_stride: Sequence[int],
    mask_unit_size: Sequence[int],
    q_stride: Sequence[int],
    q_pool: int,
    num_stages: int,
) -> None:
    """Check that the sizes divide; an error names the nearest legal ones.

    Raises:
        UserError: the lengths differ, the input is not a multiple of the mask unit, the mask unit
            is not divisible by the pooling, or there are more poolings than stage changes.
    """
    lengths = {len(input_size), len(patch_stride), len(mask_unit_size), len(q_stride)}
    if len(lengths) != 1:
        raise UserError(
            "input_size, patch_stride, mask_unit_size and q_stride must have as many numbers each, "
            f"got {tuple(input_size)}, {tuple(patch_stride)}, {tuple(mask_unit_size)}, "
            f"{tuple(q_stride)}. Try 3 for video (time, height, width) and 2 for images."
        )
    if not 0 <= q_pool < num_stages:
        raise UserError(
            f"q_pool must be 0 to {num_stages - 1} (one less than the stages), got {q_pool}."
        )
    whole = [s * u for s, u in zip(patch_stride, mask_unit_size, strict=True)]
    if any(size < 1 or size % step for size, step in zip(input_size, whole, strict=True)):
        below = tuple(max(i // w, 1) * w for i, w in zip(input_size, whole, strict=True))
        above = tuple(max(-(-i // w), 1) * w for i, w in zip(input_size, whole, strict=True))
        nearest = f"{below}" if below == above else f"{below} or {above}"
        raise UserError(
            f"input_size must be divisible by {tuple(whole)} (patch stride x mask unit), "
            f"got {tuple(input_size)}. Try {nearest}."
        )
    pooled = [q**q_pool for q in q_stride]
    if any(unit % pool for unit, pool in zip(mask_unit_size, pooled, strict=True)):
        raise UserError(
            f"mask_unit_size must be divisible by {tuple(pooled)} (q_stride to the power of "
            f"q_pool), got {tuple(mask_unit_size)}. Try {tuple(pooled)}."
        )
