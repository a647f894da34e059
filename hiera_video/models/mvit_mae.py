"""The masked autoencoder of the family from MViTv2 to Hiera, in the designs that each step allows.

Kernels that cross mask units cannot drop what is hidden: a token's value would depend on which of
its neighbours happen to be visible. So `mask_design` "sparse" needs step d. Relative positions
belong to the whole grid, so "sparse" and "separate" need step a. "dense" goes with all steps.
"""

from typing import Any

from typing_extensions import Unpack

from hiera_video.models.hiera_mae import MaskedAutoencoderHiera
from hiera_video.models.mvit import MViTEncoder, check_steps
from hiera_video.models.parts.settings import MAESettings
from hiera_video.models.parts.sizes import MICRO, MICRO_DECODER, MICRO_IMAGE, SIZES, VIDEO
from hiera_video.utils.errors import UserError


class MViTMAESettings(MAESettings, total=False):
    """The arguments of `MaskedAutoencoderMViT`."""

    simplify: str


class MaskedAutoencoderMViT(MViTEncoder, MaskedAutoencoderHiera):
    """The encoder of MViTv2, or of a simplification, with Hiera's fusion, decoder and loss.

    The arguments are those of `MViTEncoder`, without a class token, and `MaskedAutoencoderHiera`.

    Raises:
        UserError: the masking design does not go with the steps.
    """

    def __init__(self, *, simplify: str = "", **autoencoder: Unpack[MAESettings]) -> None:
        check_steps(simplify)
        _check_design(simplify, autoencoder.get("mask_design", "sparse"))
        super().__init__(simplify=simplify, **autoencoder)
        self.settings["simplify"] = simplify


def mae_mvit_base_224(**settings: Unpack[MViTMAESettings]) -> MaskedAutoencoderMViT:
    """The autoencoder of `mvit_base_224`."""
    return MaskedAutoencoderMViT(**_merged(SIZES["base"], settings))


def mae_mvit_large_224(**settings: Unpack[MViTMAESettings]) -> MaskedAutoencoderMViT:
    """The autoencoder of `mvit_large_224`."""
    return MaskedAutoencoderMViT(**_merged(SIZES["large"], settings))


def mae_mvit_base_16x224(**settings: Unpack[MViTMAESettings]) -> MaskedAutoencoderMViT:
    """The autoencoder of `mvit_base_16x224`."""
    return MaskedAutoencoderMViT(**_merged({**SIZES["base"], **VIDEO}, settings))


def mae_mvit_large_16x224(**settings: Unpack[MViTMAESettings]) -> MaskedAutoencoderMViT:
    """The autoencoder of `mvit_large_16x224`."""
    return MaskedAutoencoderMViT(**_merged({**SIZES["large"], **VIDEO}, settings))


def mae_mvit_micro_8x64(**settings: Unpack[MViTMAESettings]) -> MaskedAutoencoderMViT:
    """The autoencoder of `mvit_micro_8x64` with a small decoder, for demo and tests."""
    return MaskedAutoencoderMViT(**_merged({**MICRO, **MICRO_DECODER}, settings))


def mae_mvit_micro_64(**settings: Unpack[MViTMAESettings]) -> MaskedAutoencoderMViT:
    """The autoencoder of `mvit_micro_64` with a small decoder, for demo and tests."""
    return MaskedAutoencoderMViT(**_merged({**MICRO_IMAGE, **MICRO_DECODER}, settings))


def _merged(size: Any, settings: MViTMAESettings) -> Any:
    return {**size, **settings}


def _check_design(simplify: str, design: str) -> None:
    if design == "sparse" and "d" not in simplify:
        raise UserError(
            "MASK.DESIGN must be dense or separate while kernels cross mask units (MODEL.SIMPLIFY "
            f"{simplify!r}, without step d), got 'sparse'. Try MASK.DESIGN dense."
        )
    if design in ("sparse", "separate") and "a" not in simplify:
        raise UserError(
            "MASK.DESIGN must be dense with relative positions, which belong to the whole grid "
            f"(MODEL.SIMPLIFY {simplify!r}, without step a), got {design!r}. Try MASK.DESIGN dense."
        )
