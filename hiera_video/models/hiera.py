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
        num_classes: K; 0: no classifier, so that the outputs are the features before it.
        head_dropout: dropout before the classifier.
        head_init_scale: factor on the classifier's initial weights.
        weight_init: "trunc_normal" (std 0.02, biases 0.02: the published classifier's) or
            "xavier" (uniform, biases 0: the published autoencoder's), which learns from scratch
            faster on little data.
        encoder: the body, by keyword:
            input_size: (frames, height, width), or (height, width) for images.
            in_chans: colour channels.
            embed_dim: channels of the first stage.
            num_heads: attention heads of the first stage.
            stages: blocks of each stage.
            q_pool: how many of the stage changes pool (3 to classify, 2 in the autoencoder).
            q_stride: tokens that one pooling merges, along each dimension.
            mask_unit_size: mask unit in tokens, along each dimension.
            mask_unit_attn: for each stage, whether it attends within mask units only.
            dim_mul, head_mul: growth of channels and heads at a stage change.
            patch_kernel, patch_stride, patch_padding: of the embedding, in frames and pixels.
            mlp_ratio: hidden channels of the MLP over its input's.
            drop_path_rate: of the last block; earlier ones grow linearly from 0.
            sep_pos_embed: separate spatial and temporal position embeddings (video).

    Raises:
        UserError: sizes that do not divide, with the nearest legal ones.
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
        """Return `logits_BK`; with `return_intermediates`, also the stages' feature maps.

        Raises:
            UserError: the clips are not of the size that the model was built for.
        """
        stage_outputs = self.run_blocks(self.embed(clips_BX))
        logits_BK = self.head(self.norm(stage_outputs[-1].mean(1)))
        if return_intermediates:
            return logits_BK, self.feature_maps(stage_outputs)
        return logits_BK

    def forward_head(
        self, features: torch.Tensor | Sequence[torch.Tensor], pre_logits: bool = False
    ) -> torch.Tensor:
        """Return the logits of what `forward_features` returned, as timm's models do.

        `features` are the feature maps of all stages, of which the last is used, or that map alone
        (`[B, ..., D]`, in any order of tokens). With `pre_logits`, return the input of the
        classifier instead: the mean over all tokens, normalised.
        """
        last = features if isinstance(features, torch.Tensor) else features[-1]
        pooled_BD = self.norm(last.flatten(1, -2).mean(1))
        return self.head(pooled_BD, pre_logits=pre_logits)

    @property
    def num_classes(self) -> int:
        """The number of outputs of the classifier, 0 if there is none."""
        return self.settings["num_classes"]

    def get_classifier(self) -> nn.Module:
        """Return the last layer: a linear layer, or an identity without a classifier."""
        return self.head.projection

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a freshly initialised one for other classes, as in timm.

        0 removes the classifier. The weights get the scheme and scale that the model was built
        with; `save_pretrained` writes the new number of classes. `global_pool` is for callers of
        timm's models: Hiera averages the tokens ("avg").

        Raises:
            UserError: a negative number, or another pooling.
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

    `pretrained` loads published weights, by default those of the same name; `checkpoint` names
    others (see `checkpoints/published.py`), or is a path or URL. Keyword arguments of `Hiera`
    override the size's own, here and in the other sizes. Raises a UserError for weights that cannot
    be had or do not fit.
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
    """A Hiera small enough to train on a laptop's CPU: 8 frames of 64 px, for demo and tests.

    Not one of the paper's sizes: 1.2 M parameters. It starts from xavier weights and a classifier
    of full scale: on 1,600 clips of an earlier demo it was at 75 % after 6 epochs from scratch, and
    still at chance (12.5 %) after 5 with the classifier at the published thousandth.
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
