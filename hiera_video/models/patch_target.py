"""Pixels as the autoencoder predicts them: patches, each normalised on its own.

Shape suffixes: B clips, N tokens, P values of a patch; X is `CTHW` or `CHW`.
"""

import torch

EPSILON = 1e-6  # the published value, added to the variance


def pixel_patches(clips_BX: torch.Tensor, *, side: int, frame_stride: int = 1) -> torch.Tensor:
    """Cut clips into the patches that tokens stand for: `patches_BNP`, row-major.

    A video's patch is `side` x `side` pixels of the first of each `frame_stride` frames, channel
    last; an image's is channel first: both as published.
    """
    if clips_BX.ndim == 4:
        patches = clips_BX.unflatten(2, (-1, side)).unflatten(4, (-1, side))
        return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    frames = clips_BX[:, :, ::frame_stride]
    patches = frames.unflatten(3, (-1, side)).unflatten(5, (-1, side))
    return patches.permute(0, 2, 3, 5, 4, 6, 1).flatten(4).flatten(1, 3)


def patches_to_frames(
    patches_BNP: torch.Tensor, *, grid: tuple[int, ...], side: int
) -> torch.Tensor:
    """Put patches back: `[B, C, T, H, W]` for a video's grid (T, h, w), else `[B, C, H, W]`."""
    if len(grid) == 2:
        patches = patches_BNP.unflatten(2, (-1, side, side)).unflatten(1, grid)
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
    patches = patches_BNP.unflatten(2, (side, side, -1)).unflatten(1, grid)
    return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def statistics(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each patch `[..., P]`, `[..., 1]` each.

    The variance is the unbiased one plus 1e-6, as published.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def normalised(patches: torch.Tensor) -> torch.Tensor:
    """Return each patch `[..., P]` with mean 0 and standard deviation 1."""
    mean, deviation = statistics(patches)
    return (patches - mean) / deviation
