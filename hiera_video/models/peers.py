"""Peers from the extra `peers`: VideoMAE of transformers, and the authors' own Hiera.

All take clips `[B, C, T, H, W]` (the image models also `[B, C, H, W]`) and return logits.
"""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hiera_video.models.parts.patches import as_model_input
from hiera_video.models.parts.sizes import SIZES, VIDEO
from hiera_video.utils.compat import import_torchvision
from hiera_video.utils.errors import UserError

MISSING = "must be installed for this model (the extra `peers`). Try pip install -e '.[peers]'."


def videomae_small(
    *,
    input_size: Sequence[int] = (16, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """ViT-S of VideoMAE (Tong et al., NeurIPS 2022) in transformers, 22 M parameters."""
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    return _videomae("videomae_small", sizes, input_size, num_classes, head_dropout, drop_path_rate)


def videomae_base(
    *,
    input_size: Sequence[int] = (16, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """ViT-B of VideoMAE (Tong et al., NeurIPS 2022) in transformers, 87 M parameters."""
    return _videomae("videomae_base", {}, input_size, num_classes, head_dropout, drop_path_rate)


def published_hiera_base_224(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Hiera-B for images, from the authors' package."""
    return _hiera("hiera_base_224", input_size, num_classes, head_dropout, drop_path_rate)


def published_hiera_base_16x224(
    *,
    input_size: Sequence[int] = (16, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Hiera-B for 16 frames, from the authors' package."""
    return _hiera("hiera_base_16x224", input_size, num_classes, head_dropout, drop_path_rate)


def published_hiera_large_16x224(
    *,
    input_size: Sequence[int] = (16, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Hiera-L for 16 frames, from the authors' package."""
    return _hiera("hiera_large_16x224", input_size, num_classes, head_dropout, drop_path_rate)


def _videomae(
    name: str,
    sizes: dict[str, int],
    input_size: Sequence[int],
    num_classes: int,
    head_dropout: float,
    drop_path_rate: float,
) -> nn.Module:
    for key, value in (("DROPOUT_RATE", head_dropout), ("DROP_PATH_RATE", drop_path_rate)):
        if value:
            raise UserError(
                f"MODEL.{key} must be 0 for {name}, which lacks it, got {value}. Try MODEL.{key} 0."
            )
    frames, height, width = input_size if len(input_size) == 3 else (0, *input_size)
    if height != width or height < 16 or height % 16 or frames < 2 or frames % 2:
        raise UserError(
            f"input_size of {name} must be square and divisible by (2, 16, 16), got "
            f"{tuple(input_size)}."
        )
    import_torchvision()  # transformers may import it
    transformers = _library("transformers")
    config = transformers.VideoMAEConfig(
        image_size=height, num_frames=frames, num_labels=num_classes, **sizes
    )
    model: nn.Module = transformers.VideoMAEForVideoClassification(config)
    # Hooks and not a module around it, so that the weights keep their names. Frames come first.
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0].transpose(1, 2),))
    model.register_forward_hook(lambda module, inputs, output: output.logits)
    return model


def _hiera(
    name: str,
    input_size: Sequence[int],
    num_classes: int,
    head_dropout: float,
    drop_path_rate: float,
) -> nn.Module:
    video = "x" in name.rpartition("_")[2]
    steps = (2, 32, 32) if video else (32, 32)
    size = tuple(input_size)
    if len(size) != len(steps) or any(n < s or n % s for n, s in zip(size, steps, strict=True)):
        raise UserError(f"input_size of {name} must be divisible by {steps}, got {size}.")
    import_torchvision()  # the package imports it through timm
    size_name = name.removeprefix("hiera_").rpartition("_")[0]
    settings: dict[str, Any] = {**SIZES[size_name], **(VIDEO if video else {})}
    settings |= {"input_size": size, "num_classes": num_classes, "head_dropout": head_dropout}
    with torch.device("cpu"):  # its drop path needs values, which the meta device has not
        model: Any = _library("hiera").hiera.Hiera(**settings, drop_path_rate=drop_path_rate)
    model = model.to(torch.get_default_device())
    model.head.act_func = nn.Identity()  # it returns probabilities in evaluation
    model.register_forward_pre_hook(
        lambda module, inputs: (as_model_input(inputs[0], size), *inputs[1:])
    )
    module: nn.Module = model
    return module


def _library(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            # The authors' package imports timm by an old path.
            warnings.simplefilter("ignore", FutureWarning)
            return importlib.import_module(name)
    except ImportError:
        package = {"hiera": "hiera-transformer"}.get(name, name)
        raise UserError(f"{package} {MISSING}") from None
