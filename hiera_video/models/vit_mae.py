"""The masked autoencoder of plain vision transformers, with the decoder and the loss of Hiera's.

A mask unit is one token, so `masking.tube` draws VideoMAE's own masks. The decoder predicts the
first frame of each token's two, as Hiera's does; VideoMAE predicts both. There is one stage, so
there is nothing to fuse.
"""

from collections.abc import Mapping
from typing import Any

from typing_extensions import Unpack

from hiera_video.models.hiera_mae import MaskedAutoencoderHiera
from hiera_video.models.parts.settings import MAESettings
from hiera_video.models.parts.sizes import MICRO_DECODER
from hiera_video.models.vit import IMAGE, MICRO, SIZES, VIDEO, plain


class MaskedAutoencoderViT(MaskedAutoencoderHiera):
    """A plain vision transformer with a decoder that predicts hidden pixels.

    The arguments are those of `MaskedAutoencoderHiera`. A class token is always visible.
    """


def mae_vit_small_16x224(**settings: Unpack[MAESettings]) -> MaskedAutoencoderViT:
    """The autoencoder of `vit_small_16x224`; a decoder of 4 blocks of 192 channels, as VideoMAE."""
    decoder = {"decoder_embed_dim": 192, "decoder_depth": 4, "decoder_num_heads": 3}
    return _build({**SIZES["small"], **VIDEO, **decoder}, settings)


def mae_vit_base_16x224(**settings: Unpack[MAESettings]) -> MaskedAutoencoderViT:
    """The autoencoder of `vit_base_16x224`; a decoder of 4 blocks of 384 channels, as VideoMAE."""
    decoder = {"decoder_embed_dim": 384, "decoder_depth": 4, "decoder_num_heads": 6}
    return _build({**SIZES["base"], **VIDEO, **decoder}, settings)


def mae_vit_large_16x224(**settings: Unpack[MAESettings]) -> MaskedAutoencoderViT:
    """The autoencoder of `vit_large_16x224`; a decoder of 4 blocks of 512, as VideoMAE."""
    decoder = {"decoder_embed_dim": 512, "decoder_depth": 4, "decoder_num_heads": 8}
    return _build({**SIZES["large"], **VIDEO, **decoder}, settings)


def mae_vit_huge_16x224(**settings: Unpack[MAESettings]) -> MaskedAutoencoderViT:
    """The autoencoder of `vit_huge_16x224`; a decoder of 4 blocks of 640, as VideoMAE."""
    decoder = {"decoder_embed_dim": 640, "decoder_depth": 4, "decoder_num_heads": 8}
    return _build({**SIZES["huge"], **VIDEO, **decoder}, settings)


def mae_vit_base_224(**settings: Unpack[MAESettings]) -> MaskedAutoencoderViT:
    """The autoencoder of `vit_base_224`; a decoder of 8 blocks of 512 channels, as MAE."""
    return _build({**SIZES["base"], **IMAGE}, settings)


def mae_vit_large_224(**settings: Unpack[MAESettings]) -> MaskedAutoencoderViT:
    """The autoencoder of `vit_large_224`; a decoder of 8 blocks of 512 channels, as MAE."""
    return _build({**SIZES["large"], **IMAGE}, settings)


def mae_vit_huge_224(**settings: Unpack[MAESettings]) -> MaskedAutoencoderViT:
    """The autoencoder of `vit_huge_224`; a decoder of 8 blocks of 512 channels, as MAE."""
    return _build({**SIZES["huge"], **IMAGE, **plain((14, 14))}, settings)


def mae_vit_micro_8x64(**settings: Unpack[MAESettings]) -> MaskedAutoencoderViT:
    """The autoencoder of `vit_micro_8x64` with a small decoder, for demo and tests."""
    return _build({**MICRO, **MICRO_DECODER}, settings)


def _build(size: Mapping[str, Any], settings: MAESettings) -> MaskedAutoencoderViT:
    merged: dict[str, Any] = {**size, **settings}
    return MaskedAutoencoderViT(**merged)
