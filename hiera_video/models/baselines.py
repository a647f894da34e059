"""Convolutional networks from pytorchvideo, to compare with under the same data and engine.

All take clips `[B, C, T, H, W]` and return logits. Names of weights are the library's own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hiera_video.utils.compat import import_pytorchvideo
from hiera_video.utils.errors import UserError

SLOWFAST_ALPHA = 4  # frames of the fast pathway for each of the slow one (SlowFast 8x8)


def x3d_s(
    *,
    input_size: Sequence[int] = (13, 160, 160),
    num_classes: int = 400,
    head_dropout: float = 0.5,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """X3D-S (Feichtenhofer, CVPR 2020, table 2), 3.8 M parameters; `clips_BCTHW` to `logits_BK`.

    Raises:
        UserError: clips smaller than the network's stride, or a drop path rate, which it lacks.
            All models of this file refuse these.
    """
    return _x3d("x3d_s", input_size, num_classes, head_dropout, drop_path_rate)


def x3d_m(
    *,
    input_size: Sequence[int] = (16, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.5,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """X3D-M (Feichtenhofer, CVPR 2020): the network of X3D-S for 16 frames of 224 px."""
    return _x3d("x3d_m", input_size, num_classes, head_dropout, drop_path_rate)


def x3d_l(
    *,
    input_size: Sequence[int] = (16, 312, 312),
    num_classes: int = 400,
    head_dropout: float = 0.5,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """X3D-L (Feichtenhofer, CVPR 2020): deeper, for 16 frames of 312 px."""
    return _x3d("x3d_l", input_size, num_classes, head_dropout, drop_path_rate, depth_factor=5.0)


def slow_r50(
    *,
    input_size: Sequence[int] = (8, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.5,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """The slow pathway alone, a ResNet-50 (Feichtenhofer et al., ICCV 2019), 32 M parameters."""
    frames, side = _check("slow_r50", input_size, drop_path_rate)
    model: nn.Module = import_pytorchvideo("models.resnet").create_resnet(
        stem_conv_kernel_size=(1, 7, 7),
        head_pool_kernel_size=(frames, side // 32, side // 32),
        model_depth=50,
        model_num_class=num_classes,
        dropout_rate=head_dropout,
    )
    return model


def slowfast_r50(
    *,
    input_size: Sequence[int] = (32, 256, 256),
    num_classes: int = 400,
    head_dropout: float = 0.5,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """SlowFast-R50 8x8 (Feichtenhofer et al., ICCV 2019), 35 M parameters.

    The clip is the fast pathway's. The slow one sees every fourth frame of it, chosen as in
    PySlowFast: evenly, with the first and the last.
    """
    frames, side = _check("slowfast_r50", input_size, drop_path_rate, frame_step=SLOWFAST_ALPHA)
    pool = (side // 32, side // 32)
    model: nn.Module = import_pytorchvideo("models.slowfast").create_slowfast(
        model_depth=50,
        slowfast_fusion_conv_kernel_size=(7, 1, 1),
        head_pool_kernel_sizes=((frames // SLOWFAST_ALPHA, *pool), (frames, *pool)),
        model_num_class=num_classes,
        dropout_rate=head_dropout,
    )
    # A hook and not a module around it, so that the weights keep their names.
    model.register_forward_pre_hook(_two_pathways)
    return model


def r2plus1d_r50(
    *,
    input_size: Sequence[int] = (16, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.5,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """R(2+1)D-R50 (Tran et al., CVPR 2018), 28 M parameters."""
    frames, side = _check("r2plus1d_r50", input_size, drop_path_rate, frame_step=4)
    model: nn.Module = import_pytorchvideo("models.r2plus1d").create_r2plus1d(
        head_pool_kernel_size=(frames // 4, side // 32, side // 32),
        model_num_class=num_classes,
        dropout_rate=head_dropout,
    )
    return model


def csn_r101(
    *,
    input_size: Sequence[int] = (32, 224, 224),
    num_classes: int = 400,
    head_dropout: float = 0.5,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """ir-CSN-R101 (Tran et al., ICCV 2019), 22 M parameters."""
    frames, side = _check("csn_r101", input_size, drop_path_rate, frame_step=8)
    model: nn.Module = import_pytorchvideo("models.csn").create_csn(
        model_depth=101,
        stem_pool=nn.MaxPool3d,
        head_pool_kernel_size=(frames // 8, side // 32, side // 32),
        model_num_class=num_classes,
        dropout_rate=head_dropout,
    )
    return model


def _x3d(
    name: str,
    input_size: Sequence[int],
    num_classes: int,
    head_dropout: float,
    drop_path_rate: float,
    **more: Any,
) -> nn.Module:
    frames, side = _check(name, input_size, drop_path_rate, side_step=1)
    model: nn.Module = import_pytorchvideo("models.x3d").create_x3d(
        input_clip_length=frames,
        input_crop_size=side,
        model_num_class=num_classes,
        dropout_rate=head_dropout,
        head_activation=None,
        **more,
    )
    return model


def _check(
    name: str,
    input_size: Sequence[int],
    drop_path_rate: float,
    *,
    frame_step: int = 1,
    side_step: int = 32,
) -> tuple[int, int]:
    """Return frames and side of a clip that the network can take, or raise a UserError."""
    if drop_path_rate:
        raise UserError(
            f"MODEL.DROP_PATH_RATE must be 0 for {name}, which has no paths to drop, got "
            f"{drop_path_rate}. Try MODEL.DROP_PATH_RATE 0."
        )
    frames, height, width = input_size if len(input_size) == 3 else (0, *input_size)
    if height != width or height < 32 or height % side_step:
        rule = "square and >= 32 px" + (f", divisible by {side_step}" if side_step > 1 else "")
        raise UserError(f"input_size of {name} must be {rule}, got {tuple(input_size)}.")
    if frames < frame_step or frames % frame_step:
        raise UserError(
            f"input_size of {name} must have a number of frames divisible by {frame_step}, got "
            f"{tuple(input_size)}."
        )
    return frames, height


def _two_pathways(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give SlowFast its two pathways, made of one clip."""
    (clips_BCTHW,) = inputs
    frames = clips_BCTHW.shape[2]
    slow = torch.linspace(0, frames - 1, frames // SLOWFAST_ALPHA, device="cpu").long().tolist()
    return ([clips_BCTHW[:, :, slow], clips_BCTHW],)
