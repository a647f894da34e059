"""Report the cost per view and per video of a model, given a config or a model function.

Shape suffixes: B clips, U mask units; X is the clip's own dimensions, `CTHW` or `CHW`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from hiera_video.config import Config, views_per_video
from hiera_video.flops.count import ModelCost, count
from hiera_video.models import masking
from hiera_video.models.build import build_model, check_masks
from hiera_video.models.parts.autoencoder import MaskedAutoencoder
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.visible import draw_decoded
from hiera_video.utils.errors import UserError

# [P] tables 11, 12 (video) and 14 (images).
PAPER_MASK_RATIO_VIDEO, PAPER_MASK_RATIO_IMAGE = 0.9, 0.6


@dataclass(frozen=True, slots=True)
class MaskCounts:
    """Visible mask units and predicted decoder tokens of one clip of an autoencoder."""

    visible_units: int
    all_units: int
    decoded_tokens: int
    hidden_tokens: int


@dataclass(frozen=True, slots=True)
class Report:
    """The cost of one model and the number of views it sees of a video.

    `source` is the config's path, or empty. `clip_shape` is the shape of one view, channels first.
    `masks` is None for a classifier. `views` holds the clips and crops of a video in the test, or
    in an epoch of pretraining; None without a config.
    """

    name: str
    source: str
    clip_shape: tuple[int, ...]
    masks: MaskCounts | None
    views: tuple[int, int] | None
    cost: ModelCost

    @property
    def multiply_adds_per_video(self) -> int | None:
        """Multiply-adds of all views of a video; None if the number of views is unknown."""
        return None if self.views is None else self.cost.multiply_adds * prod(self.views)


def report_config(cfg: Config, source: str) -> Report:
    """Count the cost of a config's model on one view.

    For a classifier, the views are those of the test (TEST). For an autoencoder, they are the
    samples that an epoch of pretraining takes of a video (AUG.NUM_SAMPLE), masked by MASK.

    Raises:
        UserError: the config's model cannot be built, or its masks hide nothing.
    """
    with torch.device("meta"):
        model = build_model(cfg)
    check_masks(cfg, model)
    crop, views = cfg.DATA.TEST_CROP_SIZE, (cfg.TEST.NUM_TEMPORAL_CLIPS, cfg.TEST.NUM_SPATIAL_CROPS)
    visible_1U = decoded_1U = None
    if isinstance(model, MaskedAutoencoder):
        crop, views = cfg.DATA.TRAIN_CROP_SIZE, (views_per_video(cfg), 1)
        draw = masking.find_strategy(cfg.MASK.STRATEGY, key="MASK.STRATEGY")
        visible_1U = draw(model.unit_grid, num_clips=1, ratio=cfg.MASK.RATIO)
        decoded_1U = draw_decoded(visible_1U, keep_ratio=cfg.MASK.DECODER_KEEP_RATIO)
    shape = (3, cfg.DATA.NUM_FRAMES, crop, crop)
    masks = {"visible": visible_1U, "decoded": decoded_1U}
    return _report(model, cfg.MODEL.MODEL_NAME, shape, masks, source=source, views=views)


def report_function(
    make_model: Callable[[], HieraEncoder], *, mask_ratio: float | None = None
) -> Report:
    """Count the cost of the model that a public function makes, on one clip of its input size.

    For an autoencoder, `masking.random` hides the fraction `mask_ratio` of the mask units. None
    stands for the paper's ratio: 0.9 for videos and 0.6 for images.

    Raises:
        UserError: `mask_ratio` is not in (0, 1), or is given for a classifier.
    """
    with torch.device("meta"):
        model = make_model()
    masks: dict[str, torch.Tensor | None] = {}
    if isinstance(model, MaskedAutoencoder):
        if mask_ratio is None:
            video = len(model.input_size) == 3
            mask_ratio = PAPER_MASK_RATIO_VIDEO if video else PAPER_MASK_RATIO_IMAGE
        masks["visible"] = masking.random(model.unit_grid, num_clips=1, ratio=mask_ratio)
    elif mask_ratio is not None:
        raise UserError(
            f"--mask-ratio must go with autoencoders, got it for {make_model.__name__}. Try "
            f"mae_{make_model.__name__}."
        )
    return _report(model, make_model.__name__, (model.in_chans, *model.input_size), masks)


def _report(
    model: nn.Module,
    name: str,
    clip_shape: Sequence[int],
    masks: Mapping[str, torch.Tensor | None],
    *,
    source: str = "",
    views: tuple[int, int] | None = None,
) -> Report:
    clips_BX = torch.empty(1, *clip_shape, device="meta")
    given: dict[str, Any] = {key: mask for key, mask in masks.items() if mask is not None}
    counts = _mask_counts(model, **given) if isinstance(model, MaskedAutoencoder) else None
    cost = count(model, clips_BX, given=given)
    return Report(name, source, tuple(clip_shape), counts, views, cost)


def _mask_counts(
    model: MaskedAutoencoder, visible: torch.Tensor, decoded: torch.Tensor | None = None
) -> MaskCounts:
    tokens_per_unit = prod(model.decoder_unit)
    hidden = (~visible).sum().item() * tokens_per_unit
    return MaskCounts(
        visible_units=int(visible.sum()),
        all_units=model.num_units,
        decoded_tokens=int(hidden if decoded is None else decoded.sum() * tokens_per_unit),
        hidden_tokens=int(hidden),
    )
