"""From config to model."""

import inspect

from torch import nn

from hiera_video import models
from hiera_video.config import Config
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import find_function, find_module

# What stands beside the families and is none.
_NOT_FAMILIES = ("build", "layers", "plan", "token_order", "weights")


def build_model(cfg: Config) -> nn.Module:
    """Build MODEL.MODEL_NAME of MODEL.ARCH, with fresh weights, for the configured clips.

    Every model function takes `input_size` (frames, height, width), `num_classes`, `head_dropout`
    and `drop_path_rate` by keyword, and returns a module from `clips_BCTHW` to `logits_BK`.

    Raises:
        UserError: no such model, or it cannot be built for these clips.
    """
    family = find_module(models.__name__, cfg.MODEL.ARCH, key="MODEL.ARCH", exclude=_NOT_FAMILIES)
    make_model = find_function(family, cfg.MODEL.MODEL_NAME, key="MODEL.MODEL_NAME")
    settings = {
        "input_size": (cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE),
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "head_dropout": cfg.MODEL.DROPOUT_RATE,
        "drop_path_rate": cfg.MODEL.DROP_PATH_RATE,
    }
    try:
        inspect.signature(make_model).bind(**settings)
    except TypeError as error:
        raise UserError(
            f"MODEL.MODEL_NAME must be a function that takes {', '.join(settings)} by keyword, got "
            f"{cfg.MODEL.MODEL_NAME!r} ({error})."
        ) from None
    try:
        return make_model(**settings)
    except UserError as error:
        raise UserError(
            f"{error} (input_size is DATA.NUM_FRAMES, DATA.TRAIN_CROP_SIZE, DATA.TRAIN_CROP_SIZE.)"
        ) from None
