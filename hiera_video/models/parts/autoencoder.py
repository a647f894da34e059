"""The masked autoencoder that families of models share: masking designs, fusion, decoder, loss.

An encoder gives the tokens of each stage. They are fused into one token for each token of the last
stage. From these, a plain transformer predicts the pixels of hidden tokens (Ryali et al., ICML
2023, section 3; MAE: He et al., arXiv 2111.06377).

Shape suffixes: B clips, U mask units, V visible units, N tokens, H hidden tokens that are decoded,
M = B * H, D channels, P values of a patch. X is `CTHW` or `CHW`.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from hiera_video.models import masking
from hiera_video.models.parts.initialise import initialise
from hiera_video.models.parts.layers import NORM_EPS, HieraBlock
from hiera_video.models.parts.patches import as_model_input, normalised, pixel_patches
from hiera_video.models.parts.plan import BlockPlan
from hiera_video.models.parts.token_order import invert, unit_order
from hiera_video.models.parts.visible import (
    check_decoded,
    check_visible,
    tokens_in_order,
    tokens_of_units,
    units_of,
)
from hiera_video.utils.errors import UserError

# What the encoder does with hidden units; the letters are those of the paper's figure of masked
# autoencoders for hierarchical models. "sparse" (e) drops them; kernels do not cross units. "dense"
# (c) keeps a mask token in each place. "separate" (d) drops them and pads each unit with zeros.
DESIGNS = ("sparse", "dense", "separate")


class MAEOutput(NamedTuple):
    """The output of one forward pass.

    `loss` is the mean squared difference of `pred` and `target`, both `[M, P]`. These hold the
    decoded hidden tokens clip by clip, in row-major order of the decoder's token grid. `visible` is
    bool `[B, U]` over the mask units in row-major order, True = kept.
    """

    loss: torch.Tensor
    pred: torch.Tensor
    target: torch.Tensor
    visible: torch.Tensor


class FusionHead(nn.Module):
    """Merge the tokens that later poolings merge, with a convolution whose stride is its kernel.

    In unit order these tokens are contiguous, so the convolution is a matrix product. The weight
    has the shape of a convolution, `[D_out, D, *kernel]`, and PyTorch's initialisation for one.
    """

    def __init__(self, dim: int, dim_out: int, *, q_stride: Sequence[int], num_pools: int) -> None:
        super().__init__()
        kernel = [q**num_pools for q in q_stride]
        bound = 1 / math.sqrt(dim * math.prod(kernel))
        self.weight = nn.Parameter(torch.empty(dim_out, dim, *kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(dim_out).uniform_(-bound, bound))
        order = unit_order(kernel, unit=kernel, q_stride=q_stride, num_pools=num_pools)
        self.register_buffer("kernel_order", order, persistent=False)
        self.kernel_order: torch.Tensor

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Merge each prod(kernel) consecutive tokens; return `[B, N / prod(kernel), D_out]`."""
        kernel_size = len(self.kernel_order)
        weight = self.weight.flatten(2).index_select(2, self.kernel_order).transpose(1, 2)
        return F.linear(
            tokens_BND.unflatten(1, (-1, kernel_size)).flatten(2), weight.flatten(1), self.bias
        )


class MaskedAutoencoder(nn.Module):
    """The part of a masked autoencoder that follows its encoder; mixed into the encoder's class.

    The encoder's class builds itself first, and then calls `add_decoder`. It has `run_blocks`,
    `embed_visible` and `embed_masked` as `HieraEncoder` has.
    """

    grid: tuple[int, ...]
    unit_grid: tuple[int, ...]
    mask_unit_size: tuple[int, ...]
    q_stride: tuple[int, ...]
    input_size: tuple[int, ...]
    in_chans: int
    num_units: int
    num_extra: int
    plans: list[BlockPlan]
    embed_visible: Callable[..., torch.Tensor]
    embed_masked: Callable[..., torch.Tensor]
    run_blocks: Callable[..., list[torch.Tensor]]
    run_block: Callable[..., torch.Tensor]

    def add_decoder(
        self,
        *,
        width: int,
        patch_stride: Sequence[int],
        q_pool: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        design: str,
    ) -> None:
        """Add fusion heads and a decoder to an encoder of `width` channels with `q_pool` poolings.

        `patch_stride` is that of the patch embedding. `embed_dim`, `depth` and `num_heads` are the
        decoder's. `design` is one of DESIGNS.

        Raises:
            UserError: the sizes do not divide, or there is no such design.
        """
        _check_decoder(embed_dim, num_heads, design)
        self.mask_design = design
        pools = [q**q_pool for q in self.q_stride]
        self.decoder_grid = tuple(g // p for g, p in zip(self.grid, pools, strict=True))
        self.decoder_unit = tuple(u // p for u, p in zip(self.mask_unit_size, pools, strict=True))
        *frames, height, side = (s * p for s, p in zip(patch_stride, pools, strict=True))
        if height != side:
            raise UserError(
                "patch_stride and q_stride must give the autoencoder square patches to predict, "
                f"got {height} x {side} pixels."
            )
        self.frame_stride = frames[0] if frames else 1
        self.patch_side = side
        ends = [max(i for i, p in enumerate(self.plans) if p.stage == s) for s in range(q_pool)]
        self.multi_scale_fusion_heads = nn.ModuleList(
            FusionHead(
                self.plans[end].dim_out, width, q_stride=self.q_stride, num_pools=q_pool - stage
            )
            for stage, end in enumerate(ends)
        )
        self.encoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(width, embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.decoder_pos_embed = nn.Parameter(
            torch.zeros(1, math.prod(self.decoder_grid), embed_dim)
        )
        self.decoder_blocks = nn.ModuleList(
            HieraBlock(
                embed_dim,
                embed_dim,
                num_heads=num_heads,
                q_pool_size=1,
                mlp_ratio=4.0,
                drop_path_rate=0.0,
            )
            for _ in range(depth)
        )
        self.decoder_norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(embed_dim, self.patch_side**2 * self.in_chans)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.decoder_pos_embed, std=0.02)
        if design == "dense":
            self.mask_token_encoder = nn.Parameter(torch.zeros(1, 1, self.plans[0].dim))
            nn.init.trunc_normal_(self.mask_token_encoder, std=0.02)
        initialise(self.modules(), "xavier")

    def forward(
        self,
        clips_BX: torch.Tensor,
        visible: torch.Tensor | None = None,
        mask_ratio: float = 0.9,
        decoded: torch.Tensor | None = None,
    ) -> MAEOutput:
        """Reconstruct hidden tokens from the visible mask units.

        Args:
            clips_BX: normalised pixels.
            visible: bool `[B, U]`, True = kept, the same number in every clip. A mask on the CPU
                avoids a GPU synchronisation. None: `masking.random` draws it at `mask_ratio` from
                PyTorch's CPU generator.
            mask_ratio: the fraction of units to hide if `visible` is None.
            decoded: bool `[B, U]`, the hidden units to reconstruct, the same number in every clip
                (see `visible.draw_decoded`). The decoder skips all other hidden units. None: all
                hidden units.

        Raises:
            UserError: the clips have another size, or a mask is not as described above.
        """
        if visible is None:
            visible = masking.random(self.unit_grid, num_clips=len(clips_BX), ratio=mask_ratio)
        visible_BU = check_visible(visible, shape=(len(clips_BX), self.num_units))
        decoded_BU = check_decoded(decoded, visible_BU)
        hidden_BH = tokens_in_order(decoded_BU, grid=self.decoder_grid, unit=self.decoder_unit)
        hidden_BH = hidden_BH.to(clips_BX.device, non_blocking=True)
        pred_MP = self.decode(self.encode(clips_BX, visible_BU), visible_BU, hidden_BH)
        target_MP = self.targets(clips_BX, hidden_BH)
        loss = F.mse_loss(pred_MP.to(target_MP.dtype), target_MP)
        visible_BU = visible_BU.to(clips_BX.device, non_blocking=True)
        return MAEOutput(loss, pred_MP, target_MP, visible_BU)

    def encode(self, clips_BX: torch.Tensor, visible_BU: torch.Tensor) -> torch.Tensor:
        """Encode the visible units; return their latent tokens unit by unit, `[B, V * n, D]`.

        In the dense design, return those of all units, `[B, U * n, D]`. The result fuses the stage
        before each pooling and the last stage, as the published code does. With its 2 poolings,
        stage 3 is left out. `visible_BU` is on the CPU.
        """
        if self.mask_design == "dense":
            tokens_BUND = self.embed_masked(clips_BX, visible_BU, self.mask_token_encoder)
        else:
            apart = self.mask_design == "separate"
            tokens_BUND = self.embed_visible(clips_BX, visible_BU, apart=apart)
        stage_outputs = self.run_blocks(tokens_BUND)
        fused_BND = stage_outputs[-1]
        extra = self.num_extra  # a class token, which the fusion leaves as it is
        for head, tokens_BND in zip(self.multi_scale_fusion_heads, stage_outputs, strict=False):
            update_BND = head(tokens_BND[:, extra:])
            fused_BND = fused_BND + (F.pad(update_BND, (0, 0, extra, 0)) if extra else update_BND)
        latent_BND: torch.Tensor = self.encoder_norm(fused_BND)
        return latent_BND

    def decode(
        self, latent_BND: torch.Tensor, visible_BU: torch.Tensor, hidden_BH: torch.Tensor
    ) -> torch.Tensor:
        """Predict the patches of the tokens `hidden_BH` (row-major indices): `pred_MP`.

        The tokens of the visible units come first, followed by one mask token for each token to
        predict. Attention is global and positions are added, so any order gives the same result.
        In the dense design the encoder has a token for each place already. There the mask token
        is added to those of hidden units.
        """
        latent_BND = self.decoder_embed(latent_BND)
        mask_token = self.mask_token.to(latent_BND.dtype)
        dense, extra = self.mask_design == "dense", self.num_extra
        units_BV = units_of(torch.ones_like(visible_BU) if dense else visible_BU)
        seen_BN = tokens_of_units(units_BV, grid=self.decoder_grid, unit=self.decoder_unit)
        places_BN = seen_BN.to(hidden_BH.device, non_blocking=True)
        if dense:
            hidden_BN1 = ~visible_BU.repeat_interleave(math.prod(self.decoder_unit), 1)[..., None]
            hidden_BN1 = F.pad(hidden_BN1, (0, 0, extra, 0))
            tokens_BND = latent_BND + mask_token * hidden_BN1.to(latent_BND.device)
        else:
            places_BN = torch.cat([places_BN, hidden_BH], 1)
            tokens_BND = torch.cat([latent_BND, mask_token.expand(*hidden_BH.shape, -1)], 1)
        positions_BND = self.decoder_pos_embed[0].index_select(0, places_BN.flatten())
        positions_BND = positions_BND.unflatten(0, places_BN.shape)
        if extra:
            positions_BND = F.pad(positions_BND, (0, 0, extra, 0))  # a class token has none
        tokens_B1ND = (tokens_BND + positions_BND).unsqueeze(1)
        for block in self.decoder_blocks:
            tokens_B1ND = self.run_block(block, tokens_B1ND)
        if dense:
            asked_BH = invert(places_BN[0])[hidden_BH] + extra
            asked_BHD = tokens_B1ND[:, 0].take_along_dim(asked_BH[..., None], 1)
        else:
            asked_BHD = tokens_B1ND[:, 0, latent_BND.shape[1] :]
        pred_MP: torch.Tensor = self.decoder_pred(self.decoder_norm(asked_BHD)).flatten(0, 1)
        return pred_MP

    def targets(self, clips_BX: torch.Tensor, hidden_BH: torch.Tensor) -> torch.Tensor:
        """Return the normalised pixels of the tokens `hidden_BH`: `target_MP`.

        They are float64 if the clips are float64, and float32 otherwise.
        """
        clips_BX = as_model_input(clips_BX, self.input_size)
        exact_BX = clips_BX.to(torch.promote_types(clips_BX.dtype, torch.float32))
        patches_BNP = pixel_patches(exact_BX, side=self.patch_side, frame_stride=self.frame_stride)
        index_BHP = hidden_BH[..., None].expand(-1, -1, patches_BNP.shape[-1])
        return normalised(patches_BNP.gather(1, index_BHP).flatten(0, 1))


def _check_decoder(dim: int, num_heads: int, design: str) -> None:
    if dim % num_heads:
        raise UserError(
            f"MASK.DECODER_EMBED_DIM must be divisible by MASK.DECODER_NUM_HEADS ({num_heads}), "
            f"got {dim}. Try {max(dim // num_heads, 1) * num_heads}."
        )
    if design not in DESIGNS:
        raise UserError(f"MASK.DESIGN must be one of {', '.join(DESIGNS)}, got {design!r}.")
