"""Parameter groups: weight decay and learning rate scale of each parameter."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

# Positions and learned tokens, as in MAE and MViTv2.
_KEEP = ("pos_embed", "relative_positions", "mask_token", "class_token")


def build_param_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    weight_decay: float,
    layer_decay: float,
    layer_index: Callable[[str], int],
    num_layers: int,
) -> list[dict[str, Any]]:
    """Return optimizer groups with `params`, `names`, `weight_decay` and `lr_scale`.

    1-D parameters (biases, norms), position embeddings and learned tokens do not decay. A parameter
    of layer i of n learns at `layer_decay ** (n - 1 - i)` of the learning rate: the head at all of
    it, the embeddings slowest (layer-wise decay: BEiT, arXiv 2106.08254; MAE, arXiv 2111.06377,
    A.2).
    Frozen parameters are left out.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        keeps = parameter.ndim <= 1 or any(part in name for part in _KEEP)
        decay = 0.0 if keeps else weight_decay
        scale = layer_decay ** (num_layers - 1 - layer_index(name))
        group = groups.setdefault(
            (scale, keeps),  # a resumed run may change the weight decay, but not the groups
            {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
