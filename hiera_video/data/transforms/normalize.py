"""Convert uint8 frames to the normalised float clips that the model takes, and erase a box of them.

Legend: B views, T frames, C colour channels, H height, W width (pixels).
Random erasing is Zhong et al. 2020 (arXiv 1708.04896), with the ranges of timm and PySlowFast: 0.02
to 1/3 of the area, aspect ratio 0.3 to 1/0.3, log-uniform (uniform in the paper). As in
PySlowFast's version for videos, the box covers the same area of every frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hiera_video.data.transforms.crops import Box, check_fraction, draw_box
from hiera_video.utils.errors import UserError

MODES = ("pixel", "const")
"""The fill of an erased box: "pixel", unit normal noise drawn for each value, or "const", zeros."""


def check_mode(mode: str) -> None:
    """Raise a UserError unless `mode` is one of `MODES`."""
    if mode not in MODES:
        raise UserError(f"mode must be one of {', '.join(MODES)}, got {mode!r}. Try 'pixel'.")


def draw_erase_box(
    height: int,
    width: int,
    *,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Box | None:
    """Draw the box to erase; None if none of ten tries fits (in very long frames)."""
    return draw_box(height, width, area=area, aspect=aspect, rng=rng)


@dataclass(frozen=True, slots=True)
class Erasure:
    """A box to erase, and the seed of the noise that fills it (None: zeros)."""

    box: Box
    noise_seed: int | None


def draw_erasure(
    height: int,
    width: int,
    *,
    probability: float,
    mode: str,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Erasure | None:
    """Draw whether to erase, the box, and its fill; `mode` is one of `MODES`.

    Raises a UserError for an unknown mode or a probability outside 0..1.
    """
    check_fraction("probability", probability)
    check_mode(mode)
    if rng.random() >= probability:
        return None
    box = draw_erase_box(height, width, rng=rng, area=area, aspect=aspect)
    if box is None:
        return None
    return Erasure(box, int(rng.integers(2**63)) if mode == "pixel" else None)


def erase_(clip_CTHW: torch.Tensor, erasure: Erasure) -> None:
    """Erase a box of a normalised float clip in place; noise is drawn on the clip's device."""
    box = erasure.box
    if erasure.noise_seed is None:
        clip_CTHW[..., box.rows, box.columns] = 0.0
        return
    # torch draws normal numbers in 2/5 of numpy's time. A box may hold 800,000 of them, 5 ms on a
    # CPU, so a GPU draws its own: other numbers than the CPU's, but reproducible.
    generator = torch.Generator(clip_CTHW.device).manual_seed(erasure.noise_seed)
    shape = (*clip_CTHW.shape[:2], box.height, box.width)
    clip_CTHW[..., box.rows, box.columns] = torch.randn(
        shape, generator=generator, dtype=clip_CTHW.dtype, device=clip_CTHW.device
    )


def random_erase(
    clip_CTHW: torch.Tensor,
    *,
    probability: float,
    mode: str = "pixel",
    rng: np.random.Generator,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> torch.Tensor:
    """Erase one random box, the same in all frames, with the given probability.

    Takes a normalised float clip [C, T, H, W] and returns it or an erased copy. `mode` is one of
    `MODES`; 0 is the mean colour of a normalised clip. Raises a UserError for an unknown mode or a
    probability outside 0..1.
    """
    erasure = draw_erasure(
        *clip_CTHW.shape[-2:], probability=probability, mode=mode, rng=rng, area=area, aspect=aspect
    )
    if erasure is None:
        return clip_CTHW
    erased_CTHW = clip_CTHW.clone()
    erase_(erased_CTHW, erasure)
    return erased_CTHW


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
class Normalize:
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
