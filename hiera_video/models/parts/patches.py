"""Cut pixels into the blocks that the patch embedding reads and the patches to predict.

Shape suffixes: B clips, C colours, V visible mask units, U mask units, N tokens, P values of a
patch. X is the dimensions of a clip, `THW` or `HW`; in `pixel_patches` it includes the colours.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F


class TakesClips(Protocol):
    """A model of clips `[B, in_chans, *input_size]`; `input_size` is (T, H, W) or (H, W)."""

    in_chans: int
    input_size: tuple[int, ...]


def visible_blocks(
    clips_BCX: torch.Tensor,
    visible_BU: torch.Tensor,
    units_BV: torch.Tensor,
    *,
    unit_grid: Sequence[int],
    unit: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    apart: bool = False,
) -> torch.Tensor:
    """Return the pixels that the patch embedding reads for each visible unit: `[B * V, C, *block]`.

    `unit` is a mask unit in tokens; kernel, stride and padding are the convolution's, in pixels. A
    block is the pixels of the unit and a halo as wide as the overlapping kernel reaches. Convolving
    a block without padding gives exactly the tokens of the unit. Pixels of hidden units and outside
    the clip are 0, as published. With `apart`, the whole halo is 0.
    """
    steps = [u * s for u, s in zip(unit, stride, strict=True)]
    blocks = [(u - 1) * s + k for u, s, k in zip(unit, stride, kernel, strict=True)]
    behind = [max(b - p - s, 0) for b, p, s in zip(blocks, padding, steps, strict=True)]
    # F.pad counts from the last dimension.
    pads = [side for pair in zip(padding[::-1], behind[::-1], strict=True) for side in pair]
    if apart:
        windows = clips_BCX
    else:
        windows = F.pad(hide_pixels(clips_BCX, visible_BU, unit_grid=unit_grid), pads)
    for dim, (block, step) in enumerate(zip(blocks, steps, strict=True), start=2):
        windows = windows.unfold(dim, step if apart else block, step)
    batch = torch.arange(len(clips_BCX), device=clips_BCX.device)[:, None]
    index: Any = (batch, slice(None), *_places(units_BV, unit_grid))
    seen = windows[index].flatten(0, 1)
    return F.pad(seen, pads) if apart else seen


def hide_pixels(
    clips_BCX: torch.Tensor, visible_BU: torch.Tensor, *, unit_grid: Sequence[int]
) -> torch.Tensor:
    """Return the clips with 0 in the pixels of hidden units, on the device of `visible_BU`.

    Pixels are replaced rather than multiplied by 0, so a NaN in a hidden unit has no effect.
    """
    seen = visible_BU.unflatten(1, tuple(unit_grid)).unsqueeze(1)
    for dim, units in enumerate(unit_grid, start=2):
        seen = seen.repeat_interleave(clips_BCX.shape[dim] // units, dim)
    return torch.where(seen, clips_BCX, 0)


def _places(units_BV: torch.Tensor, unit_grid: Sequence[int]) -> list[torch.Tensor]:
    """Unravel unit indices; unlike `torch.unravel_index`, without a GPU synchronisation."""
    places: list[torch.Tensor] = []
    for size in reversed(unit_grid):
        places.insert(0, units_BV % size)
        units_BV = units_BV // size
    return places


def as_model_input(clips_BCX: torch.Tensor, input_size: Sequence[int]) -> torch.Tensor:
    """Drop the time axis of clips `[B, C, 1, H, W]` if the model's `input_size` is (H, W).

    So a model of images takes clips of one frame, and data and engine need to know clips alone.
    """
    if len(input_size) == 2 and clips_BCX.ndim == 5 and clips_BCX.shape[2] == 1:
        return clips_BCX.squeeze(2)
    return clips_BCX


EPSILON = 1e-6  # the published value, added to the variance


def pixel_patches(clips_BX: torch.Tensor, *, side: int, frame_stride: int = 1) -> torch.Tensor:
    """Cut clips into one patch per token; return `patches_BNP` in row-major order.

    A patch of a video is `side` x `side` pixels of the first of each `frame_stride` frames, channel
    last. A patch of an image is channel first. Both are as published.
    """
    if clips_BX.ndim == 4:
        patches = clips_BX.unflatten(2, (-1, side)).unflatten(4, (-1, side))
        image_BNP: torch.Tensor = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return image_BNP
    frames = clips_BX[:, :, ::frame_stride]
    patches = frames.unflatten(3, (-1, side)).unflatten(5, (-1, side))
    video_BNP: torch.Tensor = patches.permute(0, 2, 3, 5, 4, 6, 1).flatten(4).flatten(1, 3)
    return video_BNP


def patches_to_frames(
    patches_BNP: torch.Tensor, *, grid: tuple[int, ...], side: int
) -> torch.Tensor:
    """Assemble patches into `[B, C, T, H, W]` for a grid (T, h, w), else into `[B, C, H, W]`."""
    if len(grid) == 2:
        patches = patches_BNP.unflatten(2, (-1, side, side)).unflatten(1, grid)
        image_BCHW: torch.Tensor = patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return image_BCHW
    patches = patches_BNP.unflatten(2, (side, side, -1)).unflatten(1, grid)
    video_BCTHW: torch.Tensor = patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
    return video_BCTHW


def statistics(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the standard deviation of each patch `[..., P]`, both `[..., 1]`.

    The variance is the unbiased estimate plus 1e-6, as published.
    """
    mean, _, deviation = _centre(patches)
    return mean, deviation


def normalised(patches: torch.Tensor) -> torch.Tensor:
    """Normalise each patch `[..., P]` to mean 0 and standard deviation 1."""
    _, centred, deviation = _centre(patches)
    return centred / deviation


def _centre(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return each patch's mean, its differences from it, and its standard deviation.

    `torch.var_mean` gives the same, 7 to 20 times more slowly on a CPU. The second subtraction
    takes away the rounding of the mean, which counts in a patch of little contrast.
    """
    mean = patches.mean(-1, keepdim=True)
    centred = patches - mean
    rest = centred.mean(-1, keepdim=True)
    centred = centred - rest
    variance = centred.square().sum(-1, keepdim=True) / (patches.shape[-1] - 1)
    return mean + rest, centred, (variance + EPSILON).sqrt()
