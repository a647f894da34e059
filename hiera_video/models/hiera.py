"""Hiera for video and images (Ryali et al., ICML 2023, arXiv 2306.00989), and its sizes.

Weights are interchangeable with the published model's: same state-dict keys, same function.

Shape suffixes: B clips, K classes; X is `CTHW` (or `CHW`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from typing_extensions import Unpack

from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.hub_model import HubModel
from hiera_video.models.parts.initialise import initialise
from hiera_video.models.parts.layers import NORM_EPS, Head
from hiera_video.models.parts.settings import EncoderSettings, HieraSettings
from hiera_video.models.parts.sizes import MICRO, build_size
from hiera_video.utils.errors import UserError


class Hiera(HieraEncoder, HubModel):
    """Hierarchical vision transformer with mask unit attention; `clips_BX` to `logits_BK`.

    Args:
        num_classes: K. With 0 there is no classifier, and the outputs are the pooled features.
        head_dropout: dropout before the classifier.
        head_init_scale: factor on the initial weights of the classifier.
        weight_init: "trunc_normal" (std 0.02, biases 0.02, as the published classifier) or
            "xavier" (uniform, biases 0, as the published autoencoder). Trained from scratch on
            little data, "xavier" learns faster.
        encoder: keyword arguments of the encoder:
            input_size: (frames, height, width), or (height, width) for images.
            in_chans: colour channels.
            embed_dim: channels of the first stage.
            num_heads: attention heads of the first stage.
            stages: blocks of each stage.
            q_pool: number of stage changes that pool (3 for the classifier, 2 for the
                autoencoder).
            q_stride: tokens that one pooling merges, along each dimension.
            mask_unit_size: mask unit in tokens, along each dimension.
            mask_unit_attn: for each stage, whether it attends within mask units only.
            dim_mul, head_mul: growth of channels and heads at a stage change.
            patch_kernel, patch_stride, patch_padding: sizes of the patch embedding's
                convolution, in frames and pixels.
            mlp_ratio: ratio of the MLP's hidden channels to its input channels.
            drop_path_rate: rate of the last block. The rates grow linearly from 0 at the first.
            sep_pos_embed: separate spatial and temporal position embeddings (video).
            pos_embed_type: "learned", or "sincos", which is fixed and not in the state dict.
            class_token: a class token before all others. Only for a plain ViT: tokens must not be
                pooled, nor attend within mask units.

    Raises:
        UserError: the sizes do not divide; the message names the nearest legal ones.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        head_dropout: float = 0.0,
        head_init_scale: float = 0.001,
        weight_init: str = "trunc_normal",
        **encoder: Unpack[EncoderSettings],
    ) -> None:
        super().__init__(**encoder)
        self.settings = {
            "num_classes": num_classes,
            "head_dropout": head_dropout,
            "head_init_scale": head_init_scale,
            "weight_init": weight_init,
            **encoder,
        }
        self.norm = nn.LayerNorm(self.width, eps=NORM_EPS)
        self.head = Head(self.width, num_classes, dropout=head_dropout)
        initialise(self.modules(), weight_init)
        self.head.rescale(head_init_scale)

    def forward(
        self, clips_BX: torch.Tensor, return_intermediates: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """Return `logits_BK`; with `return_intermediates`, also the feature maps of all stages.

        Raises:
            UserError: the clips are not of the size that the model was built for.
        """
        stage_outputs = self.run_blocks(self.embed(clips_BX))
        logits_BK: torch.Tensor = self.head(self.pool(stage_outputs[-1]))
        if return_intermediates:
            return logits_BK, self.feature_maps(stage_outputs)
        return logits_BK

    def forward_head(
        self, features: torch.Tensor | Sequence[torch.Tensor], pre_logits: bool = False
    ) -> torch.Tensor:
        """Return the logits for the output of `forward_features`, as timm's models do.

        `features` are the feature maps of all stages, or the last map alone (`[B, ..., D]`, tokens
        in any order). Only the last map is used. With `pre_logits`, return the input of the
        classifier instead: the normalised mean over all tokens.

        Raises:
            UserError: the head takes a class token, which no feature map holds.
        """
        if self.num_extra:
            raise UserError(
                "forward_head must be given to a model without a class token, which no feature map "
                "holds. Try calling the model."
            )
        last = features if isinstance(features, torch.Tensor) else features[-1]
        logits_BK: torch.Tensor = self.head(self.pool(last.flatten(1, -2)), pre_logits=pre_logits)
        return logits_BK

    @property
    def mean_first(self) -> bool:
        """Whether the head takes the normalised mean; other families may take other features."""
        return True

    def pool(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Return the input of the head, `[B, D]`: the normalised mean over the tokens."""
        pooled_BD: torch.Tensor = self.norm(tokens_BND.mean(1))
        return pooled_BD

    @property
    def num_classes(self) -> int:
        """The number of outputs of the classifier, 0 if there is none."""
        num_classes: int = self.settings["num_classes"]
        return num_classes

    def get_classifier(self) -> nn.Module:
        """Return the last layer: a linear layer, or an identity without a classifier."""
        return self.head.projection

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a freshly initialised one for `num_classes`, as in timm.

        0 removes the classifier. The new weights use the scheme and scale that the model was built
        with. `save_pretrained` writes the new number of classes. `global_pool` exists for callers
        of timm's models: Hiera averages the tokens ("avg").

        Raises:
            UserError: `num_classes` is negative, or `global_pool` is another pooling.
        """
        if global_pool not in (None, "avg"):
            raise UserError(f"global_pool must be 'avg', got {global_pool!r}.")
        head = Head(self.width, num_classes, dropout=self.head.dropout.p)
        initialise(head.modules(), self.settings["weight_init"])
        head.rescale(self.settings["head_init_scale"])
        like = self.norm.weight
        self.head = head.to(like.device, like.dtype).train(self.training)
        self.settings["num_classes"] = num_classes


def hiera_tiny_224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-T for images of 224 px: 28 M parameters, 5 GFLOPs (Ryali et al., table 2).

    `pretrained` loads published weights, by default those of the same name. `checkpoint` names
    other published weights (see `checkpoints/published.py`), or is a path or URL. Keyword arguments
    of `Hiera` override those of the size. Raises a UserError if the weights cannot be fetched or do
    not fit. All of this also holds for the other sizes.
    """
    return _image("hiera_tiny_224", pretrained, checkpoint, settings)


def hiera_small_224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-S for images of 224 px: 35 M parameters, 6 GFLOPs (table 2)."""
    return _image("hiera_small_224", pretrained, checkpoint, settings)


def hiera_base_224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-B for images of 224 px: 52 M parameters, 9 GFLOPs (table 2)."""
    return _image("hiera_base_224", pretrained, checkpoint, settings)


def hiera_base_plus_224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-B+ for images of 224 px: 70 M parameters, 13 GFLOPs (table 2)."""
    return _image("hiera_base_plus_224", pretrained, checkpoint, settings)


def hiera_large_224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-L for images of 224 px: 214 M parameters, 40 GFLOPs (table 2)."""
    return _image("hiera_large_224", pretrained, checkpoint, settings)


def hiera_huge_224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-H for images of 224 px: 673 M parameters, 125 GFLOPs (table 2)."""
    return _image("hiera_huge_224", pretrained, checkpoint, settings)


def hiera_base_16x224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-B for 16 frames of 224 px: 51 M parameters, 102 GFLOPs (table 4)."""
    return _video("hiera_base_16x224", pretrained, checkpoint, settings)


def hiera_base_plus_16x224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-B+ for 16 frames of 224 px: 69 M parameters, 133 GFLOPs (table 4)."""
    return _video("hiera_base_plus_16x224", pretrained, checkpoint, settings)


def hiera_large_16x224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-L for 16 frames of 224 px: 213 M parameters, 413 GFLOPs (table 4)."""
    return _video("hiera_large_16x224", pretrained, checkpoint, settings)


def hiera_huge_16x224(
    *, pretrained: bool = False, checkpoint: str | None = None, **settings: Unpack[HieraSettings]
) -> Hiera:
    """Hiera-H for 16 frames of 224 px: 672 M parameters, 1159 GFLOPs (table 4)."""
    return _video("hiera_huge_16x224", pretrained, checkpoint, settings)


def hiera_micro_8x64(**settings: Unpack[HieraSettings]) -> Hiera:
    """A Hiera for demo and tests that trains on a laptop's CPU: 8 frames of 64 px.

    It has 1.2 M parameters and is not one of the paper's sizes. It uses xavier weights and a
    `head_init_scale` of 1. On 1,600 clips of an earlier demo it reached 75 % after 6 epochs from
    scratch. With the published `head_init_scale` of 0.001 it was still at chance (12.5 %) after 5.
    """
    start = {"num_classes": 400, "weight_init": "xavier", "head_init_scale": 1.0}
    merged: dict[str, Any] = {**MICRO, **start, **settings}
    return Hiera(**merged)


def _image(name: str, pretrained: bool, checkpoint: str | None, settings: HieraSettings) -> Hiera:
    return build_size(
        Hiera, name, settings, pretrained=pretrained, checkpoint=checkpoint, num_classes=1000
    )


def _video(name: str, pretrained: bool, checkpoint: str | None, settings: HieraSettings) -> Hiera:
    return build_size(
        Hiera, name, settings, pretrained=pretrained, checkpoint=checkpoint, num_classes=400
    )
