"""Image models of timm (the extra `peers`), to compare with under the same data and engine.

They take images `[B, C, H, W]`, or clips of one frame (DATA.NUM_FRAMES 1), and return logits. Names
of weights are the library's own. All refuse, with a UserError, a size that they cannot take.
"""

import importlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from hiera_video.models.parts.patches import as_model_input
from hiera_video.utils.compat import import_torchvision
from hiera_video.utils.errors import UserError

MISSING = "must be installed for this model (the extra `peers`). Try pip install -e '.[peers]'."


def vit_base_patch16_224(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """ViT-B/16 (Dosovitskiy et al., ICLR 2021), 87 M parameters; `images_BCHW` to `logits_BK`."""
    return _build("vit_base_patch16_224", input_size, num_classes, head_dropout, drop_path_rate)


def swin_tiny_patch4_window7_224(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Swin-T (Liu et al., ICCV 2021), 28 M parameters."""
    name = "swin_tiny_patch4_window7_224"
    return _build(name, input_size, num_classes, head_dropout, drop_path_rate)


def swin_small_patch4_window7_224(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Swin-S (Liu et al., ICCV 2021), 50 M parameters."""
    name = "swin_small_patch4_window7_224"
    return _build(name, input_size, num_classes, head_dropout, drop_path_rate)


def swin_base_patch4_window7_224(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Swin-B (Liu et al., ICCV 2021), 88 M parameters."""
    name = "swin_base_patch4_window7_224"
    return _build(name, input_size, num_classes, head_dropout, drop_path_rate)


def convnext_tiny(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """ConvNeXt-T (Liu et al., CVPR 2022), 29 M parameters."""
    return _build("convnext_tiny", input_size, num_classes, head_dropout, drop_path_rate)


def convnext_small(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """ConvNeXt-S (Liu et al., CVPR 2022), 50 M parameters."""
    return _build("convnext_small", input_size, num_classes, head_dropout, drop_path_rate)


def convnext_base(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """ConvNeXt-B (Liu et al., CVPR 2022), 89 M parameters."""
    return _build("convnext_base", input_size, num_classes, head_dropout, drop_path_rate)


def mvitv2_tiny(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """MViTv2-T (Li et al., CVPR 2022), 24 M parameters."""
    return _build("mvitv2_tiny", input_size, num_classes, head_dropout, drop_path_rate)


def mvitv2_small(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """MViTv2-S (Li et al., CVPR 2022), 35 M parameters."""
    return _build("mvitv2_small", input_size, num_classes, head_dropout, drop_path_rate)


def mvitv2_base(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """MViTv2-B (Li et al., CVPR 2022), 52 M parameters."""
    return _build("mvitv2_base", input_size, num_classes, head_dropout, drop_path_rate)


def mvitv2_large(
    *,
    input_size: Sequence[int] = (224, 224),
    num_classes: int = 1000,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """MViTv2-L (Li et al., CVPR 2022), 218 M parameters."""
    return _build("mvitv2_large", input_size, num_classes, head_dropout, drop_path_rate)


def _build(
    name: str,
    input_size: Sequence[int],
    num_classes: int,
    head_dropout: float,
    drop_path_rate: float,
) -> nn.Module:
    size = tuple(input_size)
    if len(size) != 2 or size[0] != size[1] or size[0] < 32 or size[0] % 32:
        raise UserError(
            f"input_size of {name} must be that of a square image, height and width divisible by "
            f"32, got {size}. Try DATA.NUM_FRAMES 1, whose clips are images."
        )
    import_torchvision()  # timm imports it
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise UserError(f"timm {MISSING}") from None
    sized = {} if name.startswith("convnext") else {"img_size": size}
    if not timm.is_model(name):
        raise UserError(f"{name} must be in timm, and version {timm.__version__} lacks it.")
    model: nn.Module = timm.create_model(
        name,
        pretrained=False,
        num_classes=num_classes,
        drop_rate=head_dropout,
        drop_path_rate=drop_path_rate,
        **sized,
    )
    # A hook and not a module around it, so that the weights keep their names.
    model.register_forward_pre_hook(
        lambda module, inputs: (as_model_input(inputs[0], size), *inputs[1:])
    )
    return model
