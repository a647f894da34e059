"""Video models of torchvision, to compare with under the same data and engine.

All take clips `[B, C, T, H, W]` and return logits. Names of weights are the library's own. All
refuse, with a UserError, a clip size that they cannot take and a setting that they lack.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from hiera_video.utils.compat import import_torchvision
from hiera_video.utils.errors import UserError


def mvit_v1_b(
    *,
    input_size: Sequence[int] = (16, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.5,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """MViT-B 16x4 (Fan et al., ICCV 2021), 37 M parameters; `clips_BCTHW` to `logits_BK`."""
    return _mvit("mvit_v1_b", input_size, num_classes, head_dropout, drop_path_rate)


def mvit_v2_s(
    *,
    input_size: Sequence[int] = (16, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.5,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """MViTv2-S 16x4 (Li et al., CVPR 2022), 35 M parameters."""
    return _mvit("mvit_v2_s", input_size, num_classes, head_dropout, drop_path_rate)


def swin3d_t(
    *,
    input_size: Sequence[int] = (32, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Video Swin-T (Liu et al., CVPR 2022), 28 M parameters."""
    return _swin("swin3d_t", input_size, num_classes, head_dropout, drop_path_rate)


def swin3d_s(
    *,
    input_size: Sequence[int] = (32, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Video Swin-S (Liu et al., CVPR 2022), 50 M parameters."""
    return _swin("swin3d_s", input_size, num_classes, head_dropout, drop_path_rate)


def swin3d_b(
    *,
    input_size: Sequence[int] = (32, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """Video Swin-B (Liu et al., CVPR 2022), 88 M parameters."""
    return _swin("swin3d_b", input_size, num_classes, head_dropout, drop_path_rate)


def s3d(
    *,
    input_size: Sequence[int] = (64, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.2,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """S3D (Xie et al., ECCV 2018), 8 M parameters."""
    if drop_path_rate:
        raise UserError(
            "MODEL.DROP_PATH_RATE must be 0 for s3d, which has no paths to drop, got "
            f"{drop_path_rate}. Try MODEL.DROP_PATH_RATE 0."
        )
    frames, height, width = _check("s3d", input_size, frame_step=8, side_step=32)
    model: nn.Module = _library("s3d")(num_classes=num_classes, dropout=head_dropout)
    # The library's kernel is that of its own clips, 2 x 7 x 7; larger clips are averaged later.
    model.avgpool = nn.AvgPool3d((frames // 8, height // 32, width // 32), stride=1)
    return model


def _mvit(
    name: str,
    input_size: Sequence[int],
    num_classes: int,
    head_dropout: float,
    drop_path_rate: float,
) -> nn.Module:
    frames, height, width = _check(name, input_size, frame_step=2, side_step=32)
    make = _library(name)
    known: list[dict[str, Any]] = []

    def note(**settings: Any) -> nn.Module:
        known.append(settings)
        return nn.Identity()

    # The function of the library builds clips of one size alone. It tells its blocks' settings to
    # this block, and its class builds them for the size given.
    make(block=note)
    flags = ("residual_pool", "residual_with_cls_embed", "rel_pos_embed", "proj_after_attn")
    module = importlib.import_module("torchvision.models.video.mvit")
    model: nn.Module = module.MViT(
        spatial_size=(height, width),
        temporal_size=frames,
        block_setting=[settings["cnf"] for settings in known],
        dropout=head_dropout,
        stochastic_depth_prob=drop_path_rate,
        num_classes=num_classes,
        **{flag: known[0][flag] for flag in flags},
    )
    return model


def _swin(
    name: str,
    input_size: Sequence[int],
    num_classes: int,
    head_dropout: float,
    drop_path_rate: float,
) -> nn.Module:
    if head_dropout:
        raise UserError(
            f"MODEL.DROPOUT_RATE must be 0 for {name}, whose head has no dropout, got "
            f"{head_dropout}. Try MODEL.DROPOUT_RATE 0."
        )
    _check(name, input_size, frame_step=2, side_step=4)
    model: nn.Module = _library(name)(num_classes=num_classes)
    # The library's function fixes the rate; as there, it grows linearly from 0 at the first block.
    blocks: list[Any] = [one for one in model.modules() if hasattr(one, "stochastic_depth")]
    for index, block in enumerate(blocks):
        block.stochastic_depth.p = drop_path_rate * index / max(len(blocks) - 1, 1)
    return model


def _library(name: str) -> Callable[..., Any]:
    import_torchvision()
    module = importlib.import_module("torchvision.models.video")
    if not hasattr(module, name):
        raise UserError(f"{name} must be in torchvision, and this version lacks it. Try a newer.")
    make: Callable[..., Any] = getattr(module, name)
    return make


def _check(
    name: str, input_size: Sequence[int], *, frame_step: int, side_step: int
) -> tuple[int, int, int]:
    frames, height, width = input_size if len(input_size) == 3 else (0, *input_size)
    wrong_sides = any(side < side_step or side % side_step for side in (height, width))
    if frames < frame_step or frames % frame_step or wrong_sides:
        raise UserError(
            f"input_size of {name} must be divisible by ({frame_step}, {side_step}, {side_step}), "
            f"got {tuple(input_size)}."
        )
    return frames, height, width
