"""Build the model of a config."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from hiera_video import models
from hiera_video.checkpoints.matching import load_weights, warn
from hiera_video.config import Config
from hiera_video.config.schema_model import FAMILY_TAKES
from hiera_video.models import masking
from hiera_video.models.parts.autoencoder import MaskedAutoencoder
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import find_function, find_module


def build_model(cfg: Config) -> nn.Module:
    """Build MODEL.MODEL_NAME of MODEL.ARCH, with fresh weights, for the configured clips.

    The function of a classifier takes `input_size`, `num_classes`,
    `head_dropout` and `drop_path_rate` by keyword. It returns a module from `clips_BCTHW` to
    `logits_BK`. The function of an autoencoder takes `decoder_embed_dim`, `decoder_depth` and
    `decoder_num_heads` instead of `num_classes` and `head_dropout`. `input_size` is (frames,
    height, width). With DATA.NUM_FRAMES 1 it is (height, width): a clip of one frame is an image.

    Raises:
        UserError: there is no such model, or it cannot be built for these clips.
    """
    family = find_module(models.__name__, cfg.MODEL.ARCH, key="MODEL.ARCH", taking=FAMILY_TAKES)
    make_model = find_function(family, cfg.MODEL.MODEL_NAME, key="MODEL.MODEL_NAME")
    settings = _settings(cfg)
    try:
        inspect.signature(make_model).bind(**settings)
    except TypeError as error:
        raise _refused(cfg, settings, error) from None
    try:
        model: nn.Module = make_model(**settings)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise _refused(cfg, settings, error) from None
    except UserError as error:
        if "input_size" not in str(error):
            raise
        raise UserError(
            f"{error} (input_size is DATA.NUM_FRAMES, DATA.TRAIN_CROP_SIZE, DATA.TRAIN_CROP_SIZE; "
            "of an image, DATA.NUM_FRAMES 1, it is the crop alone.)"
        ) from None
    freeze_layers(model, _num_frozen(cfg, model))
    if cfg.MODEL.ACT_CHECKPOINT:
        if not isinstance(model, HieraEncoder):
            raise UserError(
                f"MODEL.ACT_CHECKPOINT must be False for {cfg.MODEL.MODEL_NAME}, which has no "
                "blocks to compute again, got True. Try MODEL.ARCH hiera."
            )
        model.act_checkpoint = True
    return model


def _refused(cfg: Config, settings: Mapping[str, Any], error: TypeError) -> UserError:
    return UserError(
        f"MODEL.MODEL_NAME must be a function that takes {', '.join(settings)} by keyword, got "
        f"{cfg.MODEL.MODEL_NAME!r} ({error})."
    )


def build_trained(cfg: Config, path: str, content: Mapping[str, Any], *, key: str) -> nn.Module:
    """Build the configured model and load a checkpoint that has to fit it; log its warnings.

    `content` is what `read_checkpoint` returned for `path`; `key` names the path in messages.

    Raises:
        UserError: the model cannot be built, or the checkpoint is one of another model.
    """
    model = build_model(cfg)
    warn(load_weights(model, path, key=key, content=content), path)
    return model


def check_masks(cfg: Config, model: nn.Module) -> None:
    """Raise a UserError if MASK.STRATEGY and MASK.RATIO hide nothing of the clips of TASK ssl."""
    if cfg.TASK != "ssl":
        return
    assert isinstance(model, MaskedAutoencoder)
    strategy = masking.find_strategy(cfg.MASK.STRATEGY, key="MASK.STRATEGY")
    if strategy(model.unit_grid, num_clips=1, ratio=cfg.MASK.RATIO).all():
        raise UserError(
            f"MASK.RATIO must hide at least one part of {cfg.MASK.STRATEGY} masks, and of a grid "
            f"of {model.unit_grid} mask units (time, height, width) {cfg.MASK.RATIO} hides none. "
            "Try a higher MASK.RATIO, larger clips, or MASK.STRATEGY random."
        )


def _settings(cfg: Config) -> dict[str, Any]:
    size, frames = cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.NUM_FRAMES
    settings: dict[str, Any] = {
        "input_size": (size, size) if frames == 1 else (frames, size, size),
        "drop_path_rate": cfg.MODEL.DROP_PATH_RATE,
    }
    if cfg.MODEL.SIMPLIFY:
        settings["simplify"] = cfg.MODEL.SIMPLIFY
    if any(cfg.MODEL.MASK_UNIT_SIZE):
        settings["mask_unit_size"] = _mask_unit(cfg)
    if cfg.TASK == "ssl":
        if cfg.MASK.DESIGN != "sparse":  # a family may know no other
            settings["mask_design"] = cfg.MASK.DESIGN
        return settings | {
            "decoder_embed_dim": cfg.MASK.DECODER_EMBED_DIM,
            "decoder_depth": cfg.MASK.DECODER_DEPTH,
            "decoder_num_heads": cfg.MASK.DECODER_NUM_HEADS,
        }
    return settings | {
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "head_dropout": cfg.MODEL.DROPOUT_RATE,
    }


def _mask_unit(cfg: Config) -> tuple[int, ...]:
    unit, image = cfg.MODEL.MASK_UNIT_SIZE, cfg.DATA.NUM_FRAMES == 1
    if any(size < 1 or size != int(size) for size in unit) or (image and unit[0] != 1):
        raise UserError(
            "MODEL.MASK_UNIT_SIZE must be 3 whole numbers of at least 1, the first of them 1 for "
            f"images, got [{', '.join(f'{size:g}' for size in unit)}]. Try [1, 8, 8]."
        )
    return tuple(map(int, unit[1:] if image else unit))


def _num_frozen(cfg: Config, model: nn.Module) -> int:
    num_layers = getattr(model, "num_layers", 1)
    if num_layers == 1 and (cfg.MODEL.LINEAR_PROBE or cfg.MODEL.FREEZE_LAYERS):
        raise UserError(
            "MODEL.LINEAR_PROBE must be False and MODEL.FREEZE_LAYERS 0 for "
            f"{cfg.MODEL.MODEL_NAME}, which does not say what its layers are, got "
            f"{cfg.MODEL.LINEAR_PROBE} and {cfg.MODEL.FREEZE_LAYERS}. Try MODEL.ARCH hiera."
        )
    if cfg.MODEL.LINEAR_PROBE:
        return num_layers - 1
    if num_layers <= cfg.MODEL.FREEZE_LAYERS:
        raise UserError(
            f"MODEL.FREEZE_LAYERS must be below {num_layers}, the layers of "
            f"{cfg.MODEL.MODEL_NAME} with its classifier, got {cfg.MODEL.FREEZE_LAYERS}. Try "
            "MODEL.LINEAR_PROBE True to train the classifier alone."
        )
    return cfg.MODEL.FREEZE_LAYERS


def freeze_layers(model: nn.Module, num_layers: int) -> None:
    """Freeze the first `num_layers` layers of a model (as `model.layer_index` counts them).

    Frozen parameters require no gradient, so the optimizer omits them and the backward pass stops
    above them. Drop path is turned off in frozen blocks, where it would only add noise. 0 freezes
    nothing. A model without `layer_index` counts as one layer and is never frozen.
    """
    layered: Any = model
    if num_layers == 0 or not hasattr(model, "layer_index"):
        return
    for name, parameter in model.named_parameters():
        if layered.layer_index(name) < num_layers:
            parameter.requires_grad_(False)
    for block in list(layered.blocks)[: num_layers - 1]:
        block.drop_path.drop_prob = 0.0
