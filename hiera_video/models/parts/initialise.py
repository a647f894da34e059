"""Initialise weights by the name of a scheme, and compute fixed position embeddings.

Shape suffixes: N tokens, D channels, F frequencies.
"""

from collections.abc import Iterable, Sequence
from math import prod

import torch
from torch import nn

from hiera_video.utils.errors import UserError

SCHEMES = ("trunc_normal", "xavier")


def initialise(modules: Iterable[nn.Module], scheme: str) -> None:
    """Initialise linear, convolution and layer norm modules in place; skip other modules.

    "trunc_normal" (std 0.02, biases 0.02) is the scheme of the published classifier. "xavier"
    (uniform, biases 0) is the scheme of the published autoencoder.

    Raises:
        UserError: there is no such scheme.
    """
    if scheme not in SCHEMES:
        raise UserError(f"weight_init must be one of {SCHEMES}, got {scheme!r}.")
    for module in modules:
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.LayerNorm):
            _initialise_module(module, xavier=scheme == "xavier")


def _initialise_module(
    module: nn.Linear | nn.Conv2d | nn.Conv3d | nn.LayerNorm, *, xavier: bool
) -> None:
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    elif xavier:
        # A convolution is a linear map of its patch, so the fan-in counts all of the kernel.
        nn.init.xavier_uniform_(module.weight.detach().flatten(1))
    else:
        nn.init.trunc_normal_(module.weight, std=0.02)
    if not isinstance(module, nn.Conv2d | nn.Conv3d) and module.bias is not None:
        # The published convolution keeps PyTorch's default bias.
        nn.init.constant_(module.bias, 0.0 if xavier else 0.02)


def sincos_positions(grid: Sequence[int], dim: int) -> torch.Tensor:
    """Return fixed sine-cosine position embeddings of a token grid, `[N, D]`, row-major.

    For a video, one position counts all tokens, and sines and cosines alternate (VideoMAE, arXiv
    2203.12602; its published code). For an image, the first half of the channels encodes the column
    and the second half the row, each as sines and then cosines (MAE, arXiv 2111.06377; its
    published code). `dim` has to be divisible by 2, for images by 4.

    Raises:
        UserError: it is not.
    """
    parts = 1 if len(grid) == 3 else 2
    if dim % (2 * parts):
        raise UserError(
            f"embed_dim must be divisible by {2 * parts} for sine-cosine positions, got {dim}."
        )
    exponents = torch.arange(0, dim // parts, 2, dtype=torch.float64) * parts / dim
    frequencies = 10000.0**-exponents
    if parts == 1:
        angles_NF = torch.arange(prod(grid), dtype=torch.float64)[:, None] * frequencies
        return torch.stack([angles_NF.sin(), angles_NF.cos()], 2).flatten(1).float()
    places = torch.arange(prod(grid), dtype=torch.float64)
    halves = []
    for place_N in (places % grid[1], places // grid[1]):
        angles_NF = place_N[:, None] * frequencies
        halves += [angles_NF.sin(), angles_NF.cos()]
    return torch.cat(halves, 1).float()
