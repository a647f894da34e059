"""Initialise weights by the name of a scheme."""

from collections.abc import Iterable

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
