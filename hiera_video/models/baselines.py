"""Convolutional networks from pytorchvideo, to compare with under the same data and engine."""

from collections.abc import Sequence

from torch import nn

from hiera_video.utils.compat import import_pytorchvideo
from hiera_video.utils.errors import UserError


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
    """
    if drop_path_rate:
        raise UserError(f"MODEL.DROP_PATH_RATE must be 0 for x3d_s, got {drop_path_rate}.")
    frames, height, width = input_size
    if height != width or height < 32:
        raise UserError(f"input_size of x3d_s must be square and >= 32 px, got {input_size}.")
    create_x3d = import_pytorchvideo("models.x3d").create_x3d
    return create_x3d(
        input_clip_length=frames,
        input_crop_size=height,
        model_num_class=num_classes,
        dropout_rate=head_dropout,
        head_activation=None,
    )
