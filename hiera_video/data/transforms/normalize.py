"""Convert uint8 frames to the normalised float clips that the model takes.

Legend: B views, T frames, C colour channels, H height, W width (pixels).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hiera_video.data.transforms.erasing import Erasure, erase_
from hiera_video.utils.errors import UserError


def to_clip(
    frames_TCHW: torch.Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return `(frames / 255 - mean) / std` as contiguous float32 [C, T, H, W].

    `frames_TCHW` are uint8 in any memory layout. `mean` and `std` have one number per channel, for
    levels scaled to 0..1. If `out` (float32 [C, T, H, W]) is given, the clip is written there.
    Raises a UserError if `mean` or `std` do not fit the channels or a `std` is not positive.
    """
    num_frames, channels, height, width = frames_TCHW.shape
    _check(mean, std, channels)
    if out is None:
        out = torch.empty((channels, num_frames, height, width), dtype=torch.float32)
    out.copy_(frames_TCHW.transpose(0, 1))
    _normalize_(out, mean, std)
    return out


@dataclass(frozen=True, slots=True)
class Finish:
    """Normalise and erase the pixels of views, with the same code in a worker and on the device.

    `mean` and `std` are those of `to_clip`.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __call__(
        self,
        pixels_BTHWC: torch.Tensor,
        erasures_B: Sequence[Erasure | None] = (),
        *,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return uint8 pixels as normalised, erased clips, float32 [B, C, T, H, W], contiguous."""
        _check(self.mean, self.std, pixels_BTHWC.shape[-1])
        pixels_BCTHW = pixels_BTHWC.permute(0, 4, 1, 2, 3)
        if out is None:
            out = torch.empty(pixels_BCTHW.shape, dtype=torch.float32, device=pixels_BTHWC.device)
        out.copy_(pixels_BCTHW)
        _normalize_(out.transpose(0, 1), self.mean, self.std)
        for clip_CTHW, erasure in zip(out, erasures_B, strict=False):
            if erasure is not None:
                erase_(clip_CTHW, erasure)
        return out


def _check(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    if len(mean) != channels or len(std) != channels or min(std) <= 0.0:
        raise UserError(
            f"mean and std must have {channels} numbers each with every std above 0, "
            f"got {list(mean)} and {list(std)}. Try 0.45 and 0.225 for all channels."
        )


def _normalize_(clip_C: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
    for channel, channel_mean, channel_std in zip(clip_C, mean, std, strict=True):
        # One multiplication and one subtraction per pixel; the constants are in double precision.
        channel.mul_(1.0 / (255.0 * channel_std)).sub_(channel_mean / channel_std)
