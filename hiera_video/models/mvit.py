"""From MViTv2 to Hiera: one family whose switches are the simplifications of Hiera's table 1.

`simplify` names the steps taken (Ryali et al., ICML 2023, section 3 and table 1):

- a: absolute positions in place of relative ones;
- b: max-pools in place of depthwise convolutions and the norms after them;
- c: no pooling with stride 1;
- d: kernels as large as their strides, so that pools do not overlap;
- e: no residual connection of pooled queries;
- f: mask unit attention in place of pooled keys and values, and the mean of the tokens before the
  last norm. With all six, the model is `Hiera`, with the same names of weights.

Shape suffixes: B clips, U mask units, N tokens, E extra tokens (a class token), D channels. X is
`CTHW` or `CHW`.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import nn
from typing_extensions import Unpack

from hiera_video.models.hiera import Hiera
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.plan import BlockPlan
from hiera_video.models.parts.pooling import Layout, PoolingBlock, PoolingPlan
from hiera_video.models.parts.settings import HieraSettings
from hiera_video.models.parts.sizes import MICRO, MICRO_IMAGE, SIZES, VIDEO
from hiera_video.models.parts.token_order import invert, unit_order
from hiera_video.utils.errors import UserError

STEPS = "abcdef"


class MViTSettings(HieraSettings, total=False):
    """The arguments of `MViT`."""

    simplify: str


class MViTEncoder(HieraEncoder):
    """The encoder of MViTv2, with some of the simplifications that lead to Hiera's.

    Args:
        simplify: the steps taken, some letters of STEPS; "" is MViTv2.
        class_token: a class token before all others, as MViTv2 for video has one.
        encoder: keyword arguments of `HieraEncoder`. The pooling of keys and values in the first
            stage has the mask unit's size in space for video and half of it for images, and falls
            with the grid, as in MViTv2 (appendix B: 8 and 4).

    Raises:
        UserError: there is no such step, or the steps do not go together.
    """

    def __init__(self, *, simplify: str = "", class_token: bool = False, **encoder: Any) -> None:
        check_steps(simplify, class_token=class_token)
        # Plain attributes, before the modules: `make_block` reads them.
        self.simplify = simplify
        self.crosses_units = "d" not in simplify
        super().__init__(class_token=class_token, **encoder)
        for pools in range(self.q_pool + 1):
            for name, order in self._orders(pools).items():
                self.register_buffer(f"{name}_{pools}", order, persistent=False)

    def _orders(self, pools: int) -> dict[str, torch.Tensor]:
        """Return the unit order of the whole grid and of one unit, after `pools` poolings."""
        grids = {"whole_order": self.grid, "unit_order": self.mask_unit_size}
        found = {}
        for name, grid in grids.items():
            shrink = [q**pools for q in self.q_stride]
            found[name] = unit_order(
                [g // s for g, s in zip(grid, shrink, strict=True)],
                unit=[u // s for u, s in zip(self.mask_unit_size, shrink, strict=True)],
                q_stride=self.q_stride,
                num_pools=self.q_pool - pools,
            )
        return found

    def make_block(self, plan: BlockPlan, *, mlp_ratio: float, drop_path_rate: float) -> nn.Module:
        """Return the block of a plan, with what `simplify` leaves of MViTv2's."""
        pools_before = min(plan.stage, self.q_pool)
        pools_here = int(plan.q_pool_size > 1)
        image = len(self.grid) == 2
        kv_stride = tuple(
            max((unit // 2 if image else unit) // q**plan.stage, 1) if q > 1 else 1
            for q, unit in zip(self.q_stride, self.mask_unit_size, strict=True)
        )
        shrink = [q ** (pools_before - pools_here) for q in self.q_stride]
        return PoolingBlock(
            plan.dim,
            plan.dim_out,
            num_heads=plan.num_heads,
            plan=PoolingPlan(
                q_stride=self.q_stride if pools_here else (1,) * len(self.q_stride),
                kv_stride=None if "f" in self.simplify else kv_stride,
                overlap=self.crosses_units,
                every="c" not in self.simplify,
                convolve="b" not in self.simplify,
                relative_positions="a" not in self.simplify,
                query_residual="e" not in self.simplify,
            ),
            grid=[g // s for g, s in zip(self.grid, shrink, strict=True)],
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
        )

    def check_class_token(self) -> None:
        """Accept a class token: pools leave it as it is."""

    def add_positions(self, embed_dim: int, *, separate: bool) -> None:
        """Add absolute position embeddings, unless the blocks have relative ones."""
        self.sep_pos_embed = separate
        if "a" in self.simplify:
            super().add_positions(embed_dim, separate=separate)

    def position_embedding(self) -> torch.Tensor:
        """Return the position embedding of each token, `[1, N, D]`; zeros if they are relative."""
        if "a" in self.simplify:
            return super().position_embedding()
        zeros_1ND: torch.Tensor = self.patch_embed.proj.weight.new_zeros(1, 1, 1).expand(
            1, prod(self.grid), self.plans[0].dim
        )
        return zeros_1ND

    def run_blocks(
        self, tokens_BUND: torch.Tensor, num_stages: int | None = None
    ) -> list[torch.Tensor]:
        """Run the blocks on `[B, U, n, D]` in unit order; return the output of each stage.

        Where pools overlap or positions are relative, the units of a whole clip are joined to one
        grid. A part of the units is processed unit by unit, as if each were padded. Extra tokens
        come first in the outputs.
        """
        clips, num_units = tokens_BUND.shape[:2]
        joined = self.crosses_units or "a" not in self.simplify
        whole = joined and num_units == self.num_units
        if whole:
            layout = Layout(1, self.grid, self.num_extra)
        else:
            layout = Layout(num_units, self.mask_unit_size, self.num_extra)
        kind = "whole_order" if whole else "unit_order"
        back = invert(self.get_buffer(f"{kind}_0"))
        tokens_BND = _reorder(tokens_BUND.flatten(1, 2), back, layout._replace(extra=0))
        if self.num_extra:
            tokens_BND = torch.cat([self.class_token.expand(clips, -1, -1), tokens_BND], 1)
        outputs: list[torch.Tensor] = []
        pools = 0
        for index, (plan, block) in enumerate(zip(self.plans, self.blocks, strict=True)):
            layout = layout._replace(local="f" in self.simplify and plan.local)
            tokens_BND = self.run_block(block, tokens_BND, layout)
            if plan.q_pool_size > 1:
                layout, pools = layout.pooled(self.q_stride), pools + 1
            if index + 1 == len(self.plans) or self.plans[index + 1].stage != plan.stage:
                order = self.get_buffer(f"{kind}_{pools}")
                outputs.append(_reorder(tokens_BND, order, layout))
                if len(outputs) == num_stages:
                    break
        return outputs


class MViT(MViTEncoder, Hiera):
    """MViTv2, or a simplification of it, as a classifier: `clips_BX` to `logits_BK`.

    The arguments are those of `MViTEncoder` and `Hiera`.
    """

    def __init__(self, *, simplify: str = "", **classifier: Unpack[HieraSettings]) -> None:
        super().__init__(simplify=simplify, **classifier)
        self.settings["simplify"] = simplify

    @property
    def mean_first(self) -> bool:
        """Whether the head takes the normalised mean: with step f."""
        return "f" in self.simplify

    def pool(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Return the input of the head, `[B, D]`: the class token or the mean, normalised."""
        if self.mean_first:
            return super().pool(tokens_BND)
        normed_BND: torch.Tensor = self.norm(tokens_BND)
        return normed_BND[:, 0] if self.num_extra else normed_BND.mean(1)


def mvit_small_224(**settings: Unpack[MViTSettings]) -> MViT:
    """MViTv2-S for images of 224 px: 35 M parameters, 7.0 GFLOPs (MViTv2, table 1)."""
    return _build("small", {}, settings)


def mvit_base_224(**settings: Unpack[MViTSettings]) -> MViT:
    """MViTv2-B for images of 224 px: 52 M parameters, 10.2 GFLOPs (MViTv2, table 1)."""
    return _build("base", {}, settings)


def mvit_large_224(**settings: Unpack[MViTSettings]) -> MViT:
    """MViTv2 for images of 224 px in the size of Hiera-L, the start of Hiera's table 1."""
    return _build("large", {}, settings)


def mvit_small_16x224(**settings: Unpack[MViTSettings]) -> MViT:
    """MViTv2-S for 16 frames of 224 px: 35 M parameters, 64 GFLOPs (MViTv2, table 6)."""
    return _build("small", VIDEO, settings)


def mvit_base_16x224(**settings: Unpack[MViTSettings]) -> MViT:
    """MViTv2 for 16 frames of 224 px in the size of Hiera-B."""
    return _build("base", VIDEO, settings)


def mvit_large_16x224(**settings: Unpack[MViTSettings]) -> MViT:
    """MViTv2 for 16 frames of 224 px in the size of Hiera-L, the start of Hiera's table 1."""
    return _build("large", VIDEO, settings)


def mvit_micro_8x64(**settings: Unpack[MViTSettings]) -> MViT:
    """A small one for 8 frames of 64 px, for the demo and the tests."""
    return _build("", MICRO, settings)


def mvit_micro_64(**settings: Unpack[MViTSettings]) -> MViT:
    """A small one for images of 64 px, for the demo and the tests."""
    return _build("", MICRO_IMAGE, settings)


def _build(size: str, clip: Mapping[str, Any], settings: MViTSettings) -> MViT:
    merged: dict[str, Any] = {**SIZES.get(size, {}), **clip, **settings}
    return MViT(**merged)


def _reorder(tokens_BND: torch.Tensor, order: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Permute the tokens of each grid; extra tokens stay first."""
    extra_BED, grid_BND = tokens_BND.tensor_split([layout.extra], dim=1)
    grid_BND = grid_BND.unflatten(1, (layout.units, -1)).index_select(2, order).flatten(1, 2)
    return torch.cat([extra_BED, grid_BND], 1) if layout.extra else grid_BND


def check_steps(simplify: str, *, class_token: bool = False) -> None:
    """Raise a UserError unless there are such steps, and they go together."""
    if not set(simplify) <= set(STEPS) or len(set(simplify)) != len(simplify):
        raise UserError(
            f"MODEL.SIMPLIFY must be some of the letters {STEPS}, each once, got {simplify!r}. Try "
            "'abc'."
        )
    if "f" in simplify and not {"a", "d"} <= set(simplify):
        raise UserError(
            "MODEL.SIMPLIFY must have a and d if it has f: attention within mask units needs "
            "positions that do not belong to the whole grid, and pools that do not cross units, "
            f"got {simplify!r}. Try 'abcdef'."
        )
    if "f" in simplify and class_token:
        raise UserError(
            "class_token must be False with step f: attention within mask units has no place for "
            "a class token, got True. Try False."
        )
