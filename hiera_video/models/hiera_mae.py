"""The masked autoencoder of Hiera (Ryali et al., ICML 2023, section 3; MAE: arXiv 2111.06377).

The encoder processes the visible mask units only. Its stages are fused into one token for each
token of the last stage. From these, a plain transformer predicts the pixels of hidden tokens.
Weights are interchangeable with the published model's: same state-dict keys, same function.

Shape suffixes: B clips, U mask units, V visible units, N tokens, H hidden tokens that are decoded,
M = B * H, D channels, P values of a patch. X is `CTHW` or `CHW`.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import Unpack

from hiera_video.models import masking
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.hub_model import HubModel
from hiera_video.models.parts.initialise import initialise
from hiera_video.models.parts.layers import NORM_EPS, HieraBlock
from hiera_video.models.parts.patches import normalised, pixel_patches
from hiera_video.models.parts.settings import BodySettings, MAESettings
from hiera_video.models.parts.sizes import MICRO, build_size
from hiera_video.models.parts.token_order import unit_order
from hiera_video.models.parts.visible import (
    check_decoded,
    check_visible,
    tokens_in_order,
    tokens_of_units,
    units_of,
)
from hiera_video.utils.errors import UserError


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


class MaskedAutoencoderHiera(HieraEncoder, HubModel):
    """Hiera's encoder with multi-scale fusion and a decoder that predicts hidden pixels.

    Args:
        decoder_embed_dim: channels of the decoder.
        decoder_depth: blocks of the decoder.
        decoder_num_heads: attention heads of each decoder block. [P] tables 11 and 12 say 8 for
            video; the published functions use 16 everywhere.
        q_pool: number of stage changes that pool. With 2, a mask unit keeps 2x2 tokens.
        encoder: the other keyword arguments of the encoder; see `Hiera`.

    Raises:
        UserError: the sizes do not divide; the message names the nearest legal ones.
    """

    def __init__(
        self,
        *,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        q_pool: int = 2,
        **encoder: Unpack[BodySettings],
    ) -> None:
        super().__init__(q_pool=q_pool, **encoder)
        self.settings = {
            "decoder_embed_dim": decoder_embed_dim,
            "decoder_depth": decoder_depth,
            "decoder_num_heads": decoder_num_heads,
            "q_pool": q_pool,
            **encoder,
        }
        _check_heads(decoder_embed_dim, decoder_num_heads)
        pools = [q**q_pool for q in self.q_stride]
        self.decoder_grid = tuple(g // p for g, p in zip(self.grid, pools, strict=True))
        self.decoder_unit = tuple(u // p for u, p in zip(self.mask_unit_size, pools, strict=True))
        stride = self.patch_embed.proj.stride
        *frames, height, width = (s * p for s, p in zip(stride, pools, strict=True))
        if height != width:
            raise UserError(
                "patch_stride and q_stride must give the autoencoder square patches to predict, "
                f"got {height} x {width} pixels."
            )
        self.frame_stride = frames[0] if frames else 1
        self.patch_side = width

        ends = [max(i for i, p in enumerate(self.plans) if p.stage == s) for s in range(q_pool)]
        self.multi_scale_fusion_heads = nn.ModuleList(
            FusionHead(
                self.plans[end].dim_out,
                self.width,
                q_stride=self.q_stride,
                num_pools=q_pool - stage,
            )
            for stage, end in enumerate(ends)
        )
        self.encoder_norm = nn.LayerNorm(self.width, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(self.width, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_pos_embed = nn.Parameter(
            torch.zeros(1, math.prod(self.decoder_grid), decoder_embed_dim)
        )
        self.decoder_blocks = nn.ModuleList(
            HieraBlock(
                decoder_embed_dim,
                decoder_embed_dim,
                num_heads=decoder_num_heads,
                q_pool_size=1,
                mlp_ratio=4.0,
                drop_path_rate=0.0,
            )
            for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(decoder_embed_dim, self.patch_side**2 * self.in_chans)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.decoder_pos_embed, std=0.02)
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

        The result fuses the stage before each pooling and the last stage, as the published code
        does. With its 2 poolings, stage 3 is left out. `visible_BU` is on the CPU.
        """
        stage_outputs = self.run_blocks(self.embed_visible(clips_BX, visible_BU))
        fused_BND = stage_outputs[-1]
        for head, tokens_BND in zip(self.multi_scale_fusion_heads, stage_outputs, strict=False):
            fused_BND = fused_BND + head(tokens_BND)
        return self.encoder_norm(fused_BND)

    def decode(
        self, latent_BND: torch.Tensor, visible_BU: torch.Tensor, hidden_BH: torch.Tensor
    ) -> torch.Tensor:
        """Predict the patches of the tokens `hidden_BH` (row-major indices): `pred_MP`.

        The tokens of the visible units come first, followed by one mask token for each token to
        predict. Attention is global and positions are added, so any order gives the same result.
        """
        latent_BND = self.decoder_embed(latent_BND)
        seen_BN = tokens_of_units(
            units_of(visible_BU), grid=self.decoder_grid, unit=self.decoder_unit
        )
        places_BN = torch.cat([seen_BN.to(hidden_BH.device, non_blocking=True), hidden_BH], 1)
        asked_BHD = self.mask_token.to(latent_BND.dtype).expand(*hidden_BH.shape, -1)
        positions_BND = self.decoder_pos_embed[0].index_select(0, places_BN.flatten())
        tokens_BND = torch.cat([latent_BND, asked_BHD], 1) + positions_BND.unflatten(
            0, places_BN.shape
        )
        tokens_B1ND = tokens_BND.unsqueeze(1)
        for block in self.decoder_blocks:
            tokens_B1ND = self.run_block(block, tokens_B1ND)
        asked_BHD = tokens_B1ND[:, 0, latent_BND.shape[1] :]
        return self.decoder_pred(self.decoder_norm(asked_BHD)).flatten(0, 1)

    def targets(self, clips_BX: torch.Tensor, hidden_BH: torch.Tensor) -> torch.Tensor:
        """Return the normalised pixels of the tokens `hidden_BH`: `target_MP`.

        They are float64 if the clips are float64, and float32 otherwise.
        """
        clips_BX = self.fit_clips(clips_BX)
        exact_BX = clips_BX.to(torch.promote_types(clips_BX.dtype, torch.float32))
        patches_BNP = pixel_patches(exact_BX, side=self.patch_side, frame_stride=self.frame_stride)
        index_BHP = hidden_BH[..., None].expand(-1, -1, patches_BNP.shape[-1])
        return normalised(patches_BNP.gather(1, index_BHP).flatten(0, 1))


def mae_hiera_tiny_224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-T for images of 224 px.

    `pretrained` loads published weights: those of this name, or `checkpoint` (a path or URL).
    Keyword arguments of `MaskedAutoencoderHiera` override those of the size. Raises a UserError if
    the weights cannot be fetched or do not fit. All of this also holds for the other sizes.
    """
    return _build("mae_hiera_tiny_224", pretrained, checkpoint, settings)


def mae_hiera_small_224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-S for images of 224 px."""
    return _build("mae_hiera_small_224", pretrained, checkpoint, settings)


def mae_hiera_base_224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-B for images of 224 px."""
    return _build("mae_hiera_base_224", pretrained, checkpoint, settings)


def mae_hiera_base_plus_224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-B+ for images of 224 px."""
    return _build("mae_hiera_base_plus_224", pretrained, checkpoint, settings)


def mae_hiera_large_224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-L for images of 224 px."""
    return _build("mae_hiera_large_224", pretrained, checkpoint, settings)


def mae_hiera_huge_224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-H for images of 224 px."""
    return _build("mae_hiera_huge_224", pretrained, checkpoint, settings)


def mae_hiera_base_16x224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-B for 16 frames of 224 px: 79 M parameters."""
    return _build("mae_hiera_base_16x224", pretrained, checkpoint, settings)


def mae_hiera_base_plus_16x224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-B+ for 16 frames of 224 px: 98 M parameters."""
    return _build("mae_hiera_base_plus_16x224", pretrained, checkpoint, settings)


def mae_hiera_large_16x224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-L for 16 frames of 224 px: 244 M parameters."""
    return _build("mae_hiera_large_16x224", pretrained, checkpoint, settings)


def mae_hiera_huge_16x224(
    *,
    pretrained: bool = False,
    checkpoint: str | None = None,
    **settings: Unpack[MAESettings],
) -> MaskedAutoencoderHiera:
    """The autoencoder of Hiera-H for 16 frames of 224 px: 711 M parameters."""
    return _build("mae_hiera_huge_16x224", pretrained, checkpoint, settings)


def mae_hiera_micro_8x64(**settings: Unpack[MAESettings]) -> MaskedAutoencoderHiera:
    """The autoencoder of `hiera_micro_8x64` with a small decoder, for demo and tests."""
    decoder = {"decoder_embed_dim": 128, "decoder_depth": 2, "decoder_num_heads": 4}
    merged: dict[str, Any] = {**MICRO, **decoder, **settings}
    return MaskedAutoencoderHiera(**merged)


def _build(
    name: str, pretrained: bool, checkpoint: str | None, settings: MAESettings
) -> MaskedAutoencoderHiera:
    return build_size(
        MaskedAutoencoderHiera, name, settings, pretrained=pretrained, checkpoint=checkpoint
    )


def _check_heads(dim: int, num_heads: int) -> None:
    """Raise a UserError unless `dim` is divisible by `num_heads`."""
    if dim % num_heads:
        raise UserError(
            f"MASK.DECODER_EMBED_DIM must be divisible by MASK.DECODER_NUM_HEADS ({num_heads}), "
            f"got {dim}. Try {max(dim // num_heads, 1) * num_heads}."
        )
