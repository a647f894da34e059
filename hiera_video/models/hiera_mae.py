"""The masked autoencoder of Hiera (Ryali et al., ICML 2023, section 3; MAE: arXiv 2111.06377).

The encoder processes the visible mask units only; `parts/autoencoder.py` has the rest. Weights are
interchangeable with the published model's: same state-dict keys, same function.
"""

from typing import Any

from typing_extensions import Unpack

from hiera_video.models.parts.autoencoder import FusionHead, MAEOutput, MaskedAutoencoder
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.hub_model import HubModel
from hiera_video.models.parts.settings import BodySettings, MAESettings
from hiera_video.models.parts.sizes import MICRO, MICRO_DECODER, build_size

__all__ = ["FusionHead", "MAEOutput", "MaskedAutoencoderHiera"]


class MaskedAutoencoderHiera(HieraEncoder, MaskedAutoencoder, HubModel):
    """Hiera's encoder with multi-scale fusion and a decoder that predicts hidden pixels.

    Args:
        decoder_embed_dim: channels of the decoder.
        decoder_depth: blocks of the decoder.
        decoder_num_heads: attention heads of each decoder block. [P] tables 11 and 12 say 8 for
            video; the published functions use 16 everywhere.
        mask_design: what the encoder does with hidden mask units. "sparse", as published, drops
            them. "dense" keeps a mask token in the place of each hidden token. "separate" drops
            them, and embeds each visible unit apart, padded with zeros.
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
        mask_design: str = "sparse",
        q_pool: int = 2,
        **encoder: Unpack[BodySettings],
    ) -> None:
        super().__init__(q_pool=q_pool, **encoder)
        self.settings = {
            "decoder_embed_dim": decoder_embed_dim,
            "decoder_depth": decoder_depth,
            "decoder_num_heads": decoder_num_heads,
            "mask_design": mask_design,
            "q_pool": q_pool,
            **encoder,
        }
        self.add_decoder(
            width=self.width,
            patch_stride=self.patch_embed.proj.stride,
            q_pool=q_pool,
            embed_dim=decoder_embed_dim,
            depth=decoder_depth,
            num_heads=decoder_num_heads,
            design=mask_design,
        )


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
    merged: dict[str, Any] = {**MICRO, **MICRO_DECODER, **settings}
    return MaskedAutoencoderHiera(**merged)


def _build(
    name: str, pretrained: bool, checkpoint: str | None, settings: MAESettings
) -> MaskedAutoencoderHiera:
    return build_size(
        MaskedAutoencoderHiera, name, settings, pretrained=pretrained, checkpoint=checkpoint
    )
