"""The encoder of classifier and autoencoder: embedding, positions, blocks, feature maps.

The encoder stores its tokens in unit order (see `token_order`). This changes no value and avoids
permuting tokens: attention windows and pooling groups are contiguous.

Shape suffixes: B clips, U mask units, V visible units, N tokens, D channels, M = B * V. X is `CTHW`
or `CHW`.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hiera_video.models.parts.initialise import sincos_positions
from hiera_video.models.parts.layers import HieraBlock, PatchEmbed
from hiera_video.models.parts.patches import as_model_input, hide_pixels, visible_blocks
from hiera_video.models.parts.plan import (
    BlockPlan,
    FeatureInfo,
    check_sizes,
    plan_blocks,
    stage_indices,
    stage_info,
)
from hiera_video.models.parts.token_order import invert, unit_order
from hiera_video.models.parts.visible import units_of
from hiera_video.utils.errors import UserError


class HieraEncoder(nn.Module):
    """Patch embedding and blocks of Hiera, over all mask units of a clip or the visible ones.

    `Hiera` documents the arguments.

    Raises:
        UserError: the sizes do not divide; the message names the nearest legal ones.
    """

    def __init__(
        self,
        *,
        input_size: Sequence[int] = (224, 224),
        in_chans: int = 3,
        embed_dim: int = 96,
        num_heads: int = 1,
        stages: Sequence[int] = (2, 3, 16, 3),
        q_pool: int = 3,
        q_stride: Sequence[int] = (2, 2),
        mask_unit_size: Sequence[int] = (8, 8),
        mask_unit_attn: Sequence[bool] = (True, True, False, False),
        dim_mul: float = 2.0,
        head_mul: float = 2.0,
        patch_kernel: Sequence[int] = (7, 7),
        patch_stride: Sequence[int] = (4, 4),
        patch_padding: Sequence[int] = (3, 3),
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        sep_pos_embed: bool = False,
        pos_embed_type: str = "learned",
        class_token: bool = False,
    ) -> None:
        super().__init__()
        # Activation checkpointing: keep only the input of each block, to save memory at a cost in
        # time.
        self.act_checkpoint = False
        check_sizes(
            input_size=input_size,
            patch_stride=patch_stride,
            mask_unit_size=mask_unit_size,
            q_stride=q_stride,
            q_pool=q_pool,
            num_stages=len(stages),
        )
        self.input_size = tuple(input_size)
        self.in_chans = in_chans
        self.q_pool = q_pool
        self.q_stride = tuple(q_stride)
        self.mask_unit_size = tuple(mask_unit_size)
        self.grid = tuple(i // s for i, s in zip(input_size, patch_stride, strict=True))
        self.unit_grid = tuple(g // u for g, u in zip(self.grid, mask_unit_size, strict=True))
        self.num_units = prod(self.unit_grid)
        self.plans = plan_blocks(
            embed_dim=embed_dim,
            num_heads=num_heads,
            stages=stages,
            q_pool=q_pool,
            q_stride=q_stride,
            mask_unit_size=mask_unit_size,
            mask_unit_attn=mask_unit_attn,
            dim_mul=dim_mul,
            head_mul=head_mul,
        )
        self.patch_embed = PatchEmbed(
            in_chans, embed_dim, kernel=patch_kernel, stride=patch_stride, padding=patch_padding
        )
        self.pos_embed_type = pos_embed_type
        self.add_positions(embed_dim, separate=sep_pos_embed)
        self.num_extra = int(class_token)
        if class_token:
            self.check_class_token()
            self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
            nn.init.trunc_normal_(self.class_token, std=0.02)
        rates = torch.linspace(0, drop_path_rate, len(self.plans), device="cpu").tolist()
        self.blocks = nn.ModuleList(
            self.make_block(plan, mlp_ratio=mlp_ratio, drop_path_rate=rate)
            for plan, rate in zip(self.plans, rates, strict=True)
        )
        order = unit_order(self.grid, unit=mask_unit_size, q_stride=q_stride, num_pools=q_pool)
        self.register_buffer("token_order", order, persistent=False)
        self.token_order: torch.Tensor
        within = unit_order(
            mask_unit_size, unit=mask_unit_size, q_stride=q_stride, num_pools=q_pool
        )
        self.register_buffer("order_in_unit", within, persistent=False)
        self.order_in_unit: torch.Tensor

    def make_block(self, plan: BlockPlan, *, mlp_ratio: float, drop_path_rate: float) -> nn.Module:
        """Return the block of a plan; other families have others."""
        return HieraBlock(
            plan.dim,
            plan.dim_out,
            num_heads=plan.num_heads,
            q_pool_size=plan.q_pool_size,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
        )

    def add_positions(self, embed_dim: int, *, separate: bool) -> None:
        """Add the position embeddings; `separate` ones for space and time."""
        self.sep_pos_embed = separate
        frames, places = self.grid[0], self.grid[1:]
        if self.pos_embed_type not in ("learned", "sincos"):
            raise UserError(
                f"pos_embed_type must be 'learned' or 'sincos', got {self.pos_embed_type!r}."
            )
        if self.pos_embed_type == "sincos":
            # Not in the state dict: any program can compute it.
            table_1ND = sincos_positions(self.grid, embed_dim)[None]
            self.register_buffer("pos_embed", table_1ND, persistent=False)
        elif separate:
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, prod(places), embed_dim))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, frames, embed_dim))
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, prod(self.grid), embed_dim))
        for name, parameter in self.named_parameters():
            if name.startswith("pos_embed"):
                nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def width(self) -> int:
        """The number of channels of the last stage."""
        return self.plans[-1].dim_out

    def position_embedding(self) -> torch.Tensor:
        """Return the position embedding of each token, `[1, N, D]`, in row-major order."""
        if not self.sep_pos_embed or self.pos_embed_type == "sincos":
            return self.pos_embed
        # Time varies slowest: [1, T, 1, D] + [1, 1, HW, D].
        return (self.pos_embed_temporal[:, :, None] + self.pos_embed_spatial[:, None]).flatten(1, 2)

    def check_class_token(self) -> None:
        """Raise a UserError if the blocks have no place for a class token."""
        if any(plan.local or plan.q_pool_size > 1 for plan in self.plans):
            raise UserError(
                "class_token must be False where tokens are pooled or attend within mask units, "
                "got True. Try False, or a plain ViT (MODEL.ARCH vit)."
            )

    def embed(self, clips_BX: torch.Tensor) -> torch.Tensor:
        """Embed clips; return the tokens of all mask units, `[B, U, tokens of a unit, D]`.

        Raises:
            UserError: the clips are not of the size that the model was built for.
        """
        clips_BX = self.fit_clips(clips_BX)
        tokens_BND = self.patch_embed(clips_BX) + self.position_embedding()
        tokens_BUND: torch.Tensor = tokens_BND.index_select(1, self.token_order).unflatten(
            1, (self.num_units, -1)
        )
        return tokens_BUND

    def embed_visible(
        self, clips_BX: torch.Tensor, visible_BU: torch.Tensor, *, apart: bool = False
    ) -> torch.Tensor:
        """Embed the visible mask units only; return `[B, V, tokens of a unit, D]`.

        Hidden units are not computed, and their pixels have no effect. `visible_BU` is on the CPU
        and has the same number of True units in every clip. With `apart`, the kernel reads zeros
        beyond the unit, whether or not its neighbours are visible.

        Raises:
            UserError: the clips are not of the size that the model was built for.
        """
        clips_BX = self.fit_clips(clips_BX)
        device = clips_BX.device
        units_BV = units_of(visible_BU).to(device, non_blocking=True)
        projection = self.patch_embed.proj
        blocks = visible_blocks(
            clips_BX,
            visible_BU.to(device, non_blocking=True),
            units_BV,
            unit_grid=self.unit_grid,
            unit=self.mask_unit_size,
            kernel=projection.kernel_size,
            stride=projection.stride,
            padding=projection.padding,
            apart=apart,
        )
        tokens_MDN = self.patch_embed.project(blocks).flatten(2)
        order_UN = self.token_order.unflatten(0, (self.num_units, -1))
        tokens_MND = tokens_MDN.transpose(1, 2).index_select(1, self.order_in_unit)
        positions_ND = self.position_embedding()[0].index_select(0, order_UN[units_BV].flatten())
        tokens_BVND: torch.Tensor = tokens_MND.unflatten(
            0, units_BV.shape
        ) + positions_ND.unflatten(0, (*units_BV.shape, -1))
        return tokens_BVND

    def embed_masked(
        self, clips_BX: torch.Tensor, visible_BU: torch.Tensor, mask_token: torch.Tensor
    ) -> torch.Tensor:
        """Embed all mask units, with `mask_token` for each hidden token: `[B, U, n, D]`.

        Pixels of hidden units have no effect. Positions are added to mask tokens as well.
        """
        clips_BX = self.fit_clips(clips_BX)
        visible_BU = visible_BU.to(clips_BX.device, non_blocking=True)
        tokens_BND = self.patch_embed(
            hide_pixels(clips_BX, visible_BU, unit_grid=self.unit_grid)
        ).index_select(1, self.token_order)
        tokens_BUND = tokens_BND.unflatten(1, (self.num_units, -1))
        tokens_BUND = torch.where(
            visible_BU[..., None, None], tokens_BUND, mask_token.to(tokens_BUND.dtype)
        )
        positions_ND = self.position_embedding()[0].index_select(0, self.token_order)
        sum_BUND: torch.Tensor = tokens_BUND + positions_ND.unflatten(0, (self.num_units, -1))
        return sum_BUND

    def fit_clips(self, clips_BX: torch.Tensor) -> torch.Tensor:
        """Return the clips in the model's shape; a model of images takes clips of one frame.

        Raises:
            UserError: the clips are not of the size that the model was built for.
        """
        clips_BX = as_model_input(clips_BX, self.input_size)
        if clips_BX.shape[1:] != (self.in_chans, *self.input_size):
            raise UserError(
                f"clips must have the shape {('B', self.in_chans, *self.input_size)} this model "
                f"was built for, got {tuple(clips_BX.shape)}. Try clips of that size, or another "
                "input_size when the model is built."
            )
        return clips_BX

    def run_blocks(
        self, tokens_BUND: torch.Tensor, num_stages: int | None = None
    ) -> list[torch.Tensor]:
        """Run the blocks on `[B, U, tokens of a unit, D]`; return the output of each stage.

        If `num_stages` is given, only the first `num_stages` stages run. A class token comes first
        in the outputs.
        """
        num_units = tokens_BUND.shape[1]
        if self.num_extra:
            class_B11D = self.class_token.expand(len(tokens_BUND), -1, -1)[:, None]
            tokens_BUND = torch.cat([class_B11D, tokens_BUND.flatten(1, 2)[:, None]], 2)
        stage_outputs: list[torch.Tensor] = []
        for index, (plan, block) in enumerate(zip(self.plans, self.blocks, strict=True)):
            windows = num_units if plan.local else 1
            # In unit order this is a view, for one global window and for one window per unit.
            tokens_BUND = tokens_BUND.reshape(tokens_BUND.shape[0], windows, -1, plan.dim)
            tokens_BUND = self.run_block(block, tokens_BUND)
            if index + 1 == len(self.plans) or self.plans[index + 1].stage != plan.stage:
                stage_outputs.append(tokens_BUND.flatten(1, 2))
                if len(stage_outputs) == num_stages:
                    break
        return stage_outputs

    def run_block(self, block: nn.Module, tokens_BUND: torch.Tensor, *more: Any) -> torch.Tensor:
        """Run one block; with `act_checkpoint`, the backward pass recomputes its activations."""
        if self.act_checkpoint and torch.is_grad_enabled():
            output_BUND: torch.Tensor = checkpoint(block, tokens_BUND, *more, use_reentrant=False)
        else:
            output_BUND = block(tokens_BUND, *more)
        return output_BUND

    def feature_maps(self, stage_outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Permute each stage's tokens to spatial order: `[B, T, H, W, D]` or `[B, H, W, D]`."""
        return [
            self._to_grid(tokens_BND, num_pools=min(stage, self.q_pool))
            for stage, tokens_BND in enumerate(stage_outputs)
        ]

    def forward_features(self, clips_BX: torch.Tensor) -> list[torch.Tensor]:
        """Return the feature maps of all stages in spatial order (see `feature_maps`)."""
        return self.feature_maps(self.run_blocks(self.embed(clips_BX)))

    def forward_intermediates(
        self,
        clips_BX: torch.Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        stop_early: bool = True,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the feature maps of chosen stages, as timm's models do.

        Args:
            clips_BX: pixels, in the size that the model was built for.
            indices: the stages to return: an int n for the last n stages, or a list of stage
                numbers (negative numbers count from the end). None: all stages.
            norm: must be False, because Hiera normalises after its pooling.
            stop_early: skip the stages after the last chosen one.
            output_fmt: "NCHW", channels before the token grid (`[B, D, T, H, W]` for video), or
                "NHWC", channels last.
            intermediates_only: return only the list. Otherwise return the map of the last stage
                that ran, channels last, and the list; `forward_head` accepts that map.

        Raises:
            UserError: there is no such stage or format, or the clips have another size.
        """
        if norm:
            raise UserError("norm must be False: a Hiera normalises after its pooling. Try False.")
        if output_fmt not in ("NCHW", "NHWC"):
            raise UserError(f"output_fmt must be 'NCHW' or 'NHWC', got {output_fmt!r}.")
        stages = stage_indices(self.plans[-1].stage + 1, indices)
        num_stages = stages[-1] + 1 if stop_early else None
        maps = self.feature_maps(self.run_blocks(self.embed(clips_BX), num_stages))
        chosen = [maps[stage] for stage in stages]
        if output_fmt == "NCHW":
            chosen = [grid_BXD.movedim(-1, 1) for grid_BXD in chosen]
        return chosen if intermediates_only else (maps[-1], chosen)

    @property
    def feature_info(self) -> list[FeatureInfo]:
        """The channels, stride and last block of each stage, as in timm."""
        return stage_info(
            self.plans,
            stride=self.patch_embed.proj.stride[-1],
            q_stride=self.q_stride[-1],
            q_pool=self.q_pool,
        )

    @property
    def num_features(self) -> int:
        """The number of channels of the last stage, under timm's name."""
        return self.width

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Turn activation checkpointing of the blocks on or off."""
        self.act_checkpoint = enable

    def _to_grid(self, tokens_BND: torch.Tensor, *, num_pools: int) -> torch.Tensor:
        shrink = [q**num_pools for q in self.q_stride]
        grid = [g // s for g, s in zip(self.grid, shrink, strict=True)]
        unit = [u // s for u, s in zip(self.mask_unit_size, shrink, strict=True)]
        order = unit_order(
            grid, unit=unit, q_stride=self.q_stride, num_pools=self.q_pool - num_pools
        )
        order = invert(order).to(tokens_BND.device) + self.num_extra
        grid_BXD: torch.Tensor = tokens_BND[:, order].unflatten(1, grid)
        return grid_BXD

    @property
    def num_layers(self) -> int:
        """The number of layers for layer-wise learning-rate decay: embeddings, blocks, the rest."""
        return len(self.blocks) + 2

    def layer_index(self, name: str) -> int:
        """Return the layer of a parameter: 0 for embeddings, i + 1 for block i, else the last."""
        if name.startswith(("patch_embed", "pos_embed", "class_token", "mask_token_encoder")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers - 1
