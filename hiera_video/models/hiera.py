"""Hiera for video and images (Ryali et al., ICML 2023, arXiv 2306.00989), and its sizes.

Weights are interchangeable with the published model's: same state-dict keys, same function. Inside,
tokens are kept in unit order (see `token_order`), which changes no number but saves moving them.

Shape suffixes: B clips, U mask units, N tokens, D channels, K classes; X is `CTHW` (or `CHW`).
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from hiera_video.models.layers import NORM_EPS, Head, HieraBlock, PatchEmbed
from hiera_video.models.plan import BlockPlan, check_sizes, plan_blocks
from hiera_video.models.token_order import invert, unit_order
from hiera_video.utils.errors import UserError

WEIGHT_INITS = ("trunc_normal", "xavier")


class Hiera(nn.Module):
    """Hierarchical vision transformer with mask unit attention; `clips_BX` to `logits_BK`.

    Args:
        input_size: (frames, height, width), or (height, width) for images.
        in_chans: colour channels.
        embed_dim: channels of the first stage.
        num_heads: attention heads of the first stage.
        num_classes: K.
        stages: blocks of each stage.
        q_pool: how many of the stage changes pool (3 to classify, 2 in the masked autoencoder).
        q_stride: tokens that one pooling merges, along each dimension.
        mask_unit_size: mask unit in tokens, along each dimension.
        mask_unit_attn: for each stage, whether it attends within mask units only.
        dim_mul, head_mul: growth of channels and heads at a stage change.
        patch_kernel, patch_stride, patch_padding: of the patch embedding, in frames and pixels.
        mlp_ratio: hidden channels of the MLP over its input's.
        drop_path_rate: of the last block; earlier ones grow linearly from 0.
        head_dropout: dropout before the classifier.
        head_init_scale: factor on the classifier's initial weights.
        sep_pos_embed: separate spatial and temporal position embeddings (video).
        weight_init: "trunc_normal" (std 0.02, biases 0.02: the published classifier's) or
            "xavier" (uniform, biases 0: the published autoencoder's), which learns from scratch
            faster on little data.

    Raises:
        UserError: sizes that do not divide, with the nearest legal ones.
    """

    def __init__(
        self,
        *,
        input_size: Sequence[int] = (224, 224),
        in_chans: int = 3,
        embed_dim: int = 96,
        num_heads: int = 1,
        num_classes: int = 1000,
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
        head_dropout: float = 0.0,
        head_init_scale: float = 0.001,
        sep_pos_embed: bool = False,
        weight_init: str = "trunc_normal",
    ) -> None:
        super().__init__()
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
        self.q_stride = tuple(q_stride)
        self.mask_unit_size = tuple(mask_unit_size)
        self.grid = tuple(i // s for i, s in zip(input_size, patch_stride, strict=True))
        self.num_units = prod(self.grid) // prod(self.mask_unit_size)
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
        self.q_pool = q_pool

        self.patch_embed = PatchEmbed(
            in_chans, embed_dim, kernel=patch_kernel, stride=patch_stride, padding=patch_padding
        )
        self._add_position_embeddings(embed_dim, separate=sep_pos_embed)
        rates = torch.linspace(0, drop_path_rate, len(self.plans), device="cpu").tolist()
        self.blocks = nn.ModuleList(
            _build_block(plan, mlp_ratio=mlp_ratio, drop_path_rate=rate)
            for plan, rate in zip(self.plans, rates, strict=True)
        )
        width = self.plans[-1].dim_out
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = Head(width, num_classes, dropout=head_dropout)
        order = unit_order(self.grid, unit=mask_unit_size, q_stride=q_stride, num_pools=q_pool)
        self.register_buffer("token_order", order, persistent=False)
        self.token_order: torch.Tensor
        self._initialise(weight_init, head_init_scale)

    def _add_position_embeddings(self, embed_dim: int, *, separate: bool) -> None:
        self.sep_pos_embed = separate
        frames, places = self.grid[0], self.grid[1:]
        if separate:
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, prod(places), embed_dim))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, frames, embed_dim))
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, prod(self.grid), embed_dim))

    def _initialise(self, weight_init: str, head_init_scale: float) -> None:
        if weight_init not in WEIGHT_INITS:
            raise UserError(f"weight_init must be one of {WEIGHT_INITS}, got {weight_init!r}.")
        for name, parameter in self.named_parameters():
            if name.startswith("pos_embed"):
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.LayerNorm):
                _initialise_module(module, weight_init)
        with torch.no_grad():
            self.head.projection.weight.mul_(head_init_scale)
            self.head.projection.bias.mul_(head_init_scale)

    def position_embedding(self) -> torch.Tensor:
        """Return the embedding of every token, `[1, N, D]`, in row-major order."""
        if not self.sep_pos_embed:
            return self.pos_embed
        # time varies slowest: [1, T, 1, D] + [1, 1, HW, D]
        return (self.pos_embed_temporal[:, :, None] + self.pos_embed_spatial[:, None]).flatten(1, 2)

    def embed(self, clips_BX: torch.Tensor) -> torch.Tensor:
        """Return the tokens of all mask units, `[B, U, tokens of a unit, D]`.

        Raises:
            UserError: the clips are not of the size that the model was built for.
        """
        if clips_BX.shape[1:] != (self.in_chans, *self.input_size):
            raise UserError(
                f"clips must have the shape {('B', self.in_chans, *self.input_size)} this model "
                f"was built for, got {tuple(clips_BX.shape)}. Try clips of that size, or another "
                "input_size when the model is built."
            )
        tokens_BND = self.patch_embed(clips_BX) + self.position_embedding()
        return tokens_BND[:, self.token_order].unflatten(1, (self.num_units, -1))

    def run_blocks(self, tokens_BUND: torch.Tensor) -> list[torch.Tensor]:
        """Run all blocks on `[B, U, tokens of a unit, D]`; return each stage's last tokens."""
        num_units = tokens_BUND.shape[1]
        stage_outputs: list[torch.Tensor] = []
        for index, (plan, block) in enumerate(zip(self.plans, self.blocks, strict=True)):
            windows = num_units if plan.local else 1
            # A view: in unit order, one window of all units and many of one unit are the same rows.
            tokens_BUND = tokens_BUND.reshape(len(tokens_BUND), windows, -1, plan.dim)
            tokens_BUND = block(tokens_BUND)
            if index + 1 == len(self.plans) or self.plans[index + 1].stage != plan.stage:
                stage_outputs.append(tokens_BUND.flatten(1, 2))
        return stage_outputs

    def feature_maps(self, stage_outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the stages' tokens in spatial order: `[B, T, H, W, D]`, or `[B, H, W, D]`."""
        return [
            self._to_grid(tokens_BND, num_pools=min(stage, self.q_pool))
            for stage, tokens_BND in enumerate(stage_outputs)
        ]

    def _to_grid(self, tokens_BND: torch.Tensor, *, num_pools: int) -> torch.Tensor:
        shrink = [q**num_pools for q in self.q_stride]
        grid = [g // s for g, s in zip(self.grid, shrink, strict=True)]
        unit = [u // s for u, s in zip(self.mask_unit_size, shrink, strict=True)]
        order = unit_order(
            grid, unit=unit, q_stride=self.q_stride, num_pools=self.q_pool - num_pools
        )
        return tokens_BND[:, invert(order).to(tokens_BND.device)].unflatten(1, grid)

    def forward(
        self, clips_BX: torch.Tensor, return_intermediates: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """Return `logits_BK`; with `return_intermediates`, also the stages' feature maps."""
        stage_outputs = self.run_blocks(self.embed(clips_BX))
        logits_BK = self.head(self.norm(stage_outputs[-1].mean(1)))
        if return_intermediates:
            return logits_BK, self.feature_maps(stage_outputs)
        return logits_BK

    @property
    def num_layers(self) -> int:
        """The number of layers for layer-wise learning-rate decay: embedding, blocks, head."""
        return len(self.blocks) + 2

    def layer_index(self, name: str) -> int:
        """Return a parameter's layer: 0 embeddings, i + 1 block i, the last one norm and head."""
        if name.startswith(("patch_embed", "pos_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers - 1


def _build_block(plan: BlockPlan, *, mlp_ratio: float, drop_path_rate: float) -> HieraBlock:
    return HieraBlock(
        plan.dim,
        plan.dim_out,
        num_heads=plan.num_heads,
        q_pool_size=plan.q_pool_size,
        mlp_ratio=mlp_ratio,
        drop_path_rate=drop_path_rate,
    )


def _initialise_module(
    module: nn.Linear | nn.Conv2d | nn.Conv3d | nn.LayerNorm, weight_init: str
) -> None:
    xavier = weight_init == "xavier"
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    elif xavier:
        # A convolution is a linear map of its patch: fan-in is the whole kernel.
        nn.init.xavier_uniform_(module.weight.detach().flatten(1))
    else:
        nn.init.trunc_normal_(module.weight, std=0.02)
    if not isinstance(module, nn.Conv2d | nn.Conv3d) and module.bias is not None:
        # The published convolution keeps PyTorch's default bias.
        nn.init.constant_(module.bias, 0.0 if xavier else 0.02)


def hiera_base_16x224(**settings: Any) -> Hiera:
    """Hiera-B for 16 frames of 224 px: 51 M parameters, 102 GFLOPs (Ryali et al., table 4).

    Keyword arguments of `Hiera` override the size's own, here and in the other sizes.
    """
    return _video_hiera(settings, embed_dim=96, num_heads=1, stages=(2, 3, 16, 3))


def hiera_base_plus_16x224(**settings: Any) -> Hiera:
    """Hiera-B+ for 16 frames of 224 px: 69 M parameters, 133 GFLOPs (table 4)."""
    return _video_hiera(settings, embed_dim=112, num_heads=2, stages=(2, 3, 16, 3))


def hiera_large_16x224(**settings: Any) -> Hiera:
    """Hiera-L for 16 frames of 224 px: 213 M parameters, 413 GFLOPs (table 4)."""
    return _video_hiera(settings, embed_dim=144, num_heads=2, stages=(2, 6, 36, 4))


def hiera_huge_16x224(**settings: Any) -> Hiera:
    """Hiera-H for 16 frames of 224 px: 672 M parameters, 1159 GFLOPs (table 4)."""
    return _video_hiera(settings, embed_dim=256, num_heads=4, stages=(2, 6, 36, 4))


def hiera_micro_8x64(**settings: Any) -> Hiera:
    """A Hiera small enough to train on a laptop's CPU: 8 frames of 64 px, for demo and tests.

    Not one of the paper's sizes: 1.2 M parameters. It starts from xavier weights and a classifier
    of full scale: trained from scratch on the demo's 1,600 clips, it is at 75 % after 6 epochs, and
    still at chance (12.5 %) after 5 with the classifier at the published thousandth.
    """
    size: dict[str, Any] = {
        "input_size": (8, 64, 64),
        "weight_init": "xavier",
        "head_init_scale": 1.0,
    }
    return _video_hiera(size | settings, embed_dim=32, num_heads=1, stages=(1, 1, 2, 1))


def _video_hiera(settings: dict[str, Any], **size: Any) -> Hiera:
    video: dict[str, Any] = {
        "input_size": (16, 224, 224),
        "num_classes": 400,
        "q_stride": (1, 2, 2),
        "mask_unit_size": (1, 8, 8),
        "patch_kernel": (3, 7, 7),
        "patch_stride": (2, 4, 4),
        "patch_padding": (1, 3, 3),
        "sep_pos_embed": True,
    }
    return Hiera(**(video | size | settings))
