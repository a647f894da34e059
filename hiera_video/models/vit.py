"""Plain vision transformers: the encoder of Hiera with one stage and without pooling.

For video, the encoder of VideoMAE (Tong et al., NeurIPS 2022, arXiv 2203.12602) and MAE-ST
(Feichtenhofer et al., NeurIPS 2022, arXiv 2205.09113): patches of 2 x 16 x 16 pixels. For images,
ViT (Dosovitskiy et al., ICLR 2021) and MAE (He et al., CVPR 2022): patches of 16 x 16, for H of
14 x 14. A mask unit is one token.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from typing_extensions import Unpack

from hiera_video.models.hiera import Hiera
from hiera_video.models.parts.settings import HieraSettings
from hiera_video.utils.errors import UserError

SIZES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "small": {"embed_dim": 384, "num_heads": 6, "stages": (12,)},
        "base": {"embed_dim": 768, "num_heads": 12, "stages": (12,)},
        "large": {"embed_dim": 1024, "num_heads": 16, "stages": (24,)},
        "huge": {"embed_dim": 1280, "num_heads": 16, "stages": (32,)},
        # Small enough for a laptop's CPU, for the demo and the tests.
        "micro": {"embed_dim": 96, "num_heads": 3, "stages": (6,)},
    }
)


def plain(patch: tuple[int, ...]) -> dict[str, Any]:
    """Return the settings of an encoder without hierarchy, whose patches do not overlap."""
    ones = (1,) * len(patch)
    return {
        "q_pool": 0,
        "q_stride": ones,
        "mask_unit_size": ones,
        "mask_unit_attn": (False,),
        "patch_kernel": patch,
        "patch_stride": patch,
        "patch_padding": (0,) * len(patch),
    }


# VideoMAE: fixed positions, no class token. ViT: learned positions and a class token.
VIDEO: Mapping[str, Any] = MappingProxyType(
    {**plain((2, 16, 16)), "input_size": (16, 224, 224), "pos_embed_type": "sincos"}
)
IMAGE: Mapping[str, Any] = MappingProxyType(
    {**plain((16, 16)), "input_size": (224, 224), "class_token": True}
)
MICRO: Mapping[str, Any] = MappingProxyType(
    {
        **plain((2, 8, 8)),
        "input_size": (8, 64, 64),
        "pos_embed_type": "sincos",
        **SIZES["micro"],
    }
)


class ViT(Hiera):
    """A plain vision transformer as a classifier: `clips_BX` to `logits_BK`.

    The arguments are those of `Hiera`. With `class_token`, the head takes the normalised class
    token, otherwise the normalised mean over the tokens.

    Raises:
        UserError: the tokens are pooled, which is not plain.
    """

    def __init__(self, **classifier: Unpack[HieraSettings]) -> None:
        if classifier.get("q_pool", 3) or len(classifier.get("stages", ())) != 1:
            raise UserError(
                "q_pool must be 0 and stages one number for a plain ViT, got "
                f"{classifier.get('q_pool', 3)} and {classifier.get('stages', ())}. Try MODEL.ARCH "
                "hiera."
            )
        super().__init__(**classifier)

    @property
    def mean_first(self) -> bool:
        """Whether the head takes the normalised mean: without a class token."""
        return not self.num_extra

    def pool(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Return the input of the head, `[B, D]`: the class token or the mean, normalised."""
        if self.mean_first:
            return super().pool(tokens_BND)
        class_BD: torch.Tensor = self.norm(tokens_BND[:, 0])
        return class_BD


def vit_small_16x224(**settings: Unpack[HieraSettings]) -> ViT:
    """ViT-S of VideoMAE for 16 frames of 224 px: 22 M parameters, 57 GFLOPs."""
    return _build("small", VIDEO, settings)


def vit_base_16x224(**settings: Unpack[HieraSettings]) -> ViT:
    """ViT-B of VideoMAE for 16 frames of 224 px: 87 M parameters, 180 GFLOPs."""
    return _build("base", VIDEO, settings)


def vit_large_16x224(**settings: Unpack[HieraSettings]) -> ViT:
    """ViT-L of VideoMAE for 16 frames of 224 px: 304 M parameters, 597 GFLOPs."""
    return _build("large", VIDEO, settings)


def vit_huge_16x224(**settings: Unpack[HieraSettings]) -> ViT:
    """ViT-H of VideoMAE for 16 frames of 224 px: 633 M parameters, 1192 GFLOPs."""
    return _build("huge", VIDEO, settings)


def vit_small_224(**settings: Unpack[HieraSettings]) -> ViT:
    """ViT-S/16 for images of 224 px: 22 M parameters, 4.6 GFLOPs."""
    return _build("small", IMAGE, settings)


def vit_base_224(**settings: Unpack[HieraSettings]) -> ViT:
    """ViT-B/16 for images of 224 px: 87 M parameters, 17.6 GFLOPs."""
    return _build("base", IMAGE, settings)


def vit_large_224(**settings: Unpack[HieraSettings]) -> ViT:
    """ViT-L/16 for images of 224 px: 304 M parameters."""
    return _build("large", IMAGE, settings)


def vit_huge_224(**settings: Unpack[HieraSettings]) -> ViT:
    """ViT-H/14 for images of 224 px, as in MAE: 632 M parameters."""
    return _build("huge", {**IMAGE, **plain((14, 14))}, settings)


def vit_micro_8x64(**settings: Unpack[HieraSettings]) -> ViT:
    """A small one for 8 frames of 64 px, with patches of 2 x 8 x 8, for the demo and the tests."""
    return _build("micro", MICRO, settings)


def _build(size: str, clip: Mapping[str, Any], settings: HieraSettings) -> ViT:
    merged: dict[str, Any] = {**SIZES[size], **clip, **settings}
    return ViT(**merged)
