"""Layers that keep their weights: for a linear probe, or to fine-tune the upper part alone."""

from typing import Any

from torch import nn


def freeze_layers(model: nn.Module, num_layers: int) -> None:
    """Keep the weights of the first `num_layers` layers (as `model.layer_index` counts them).

    Frozen parameters want no gradient, so the optimizer leaves them out and backward stops above
    them. Their blocks are no longer skipped by drop path, which would be noise that nothing learns
    from. 0 freezes nothing; a model without `layer_index` is a single layer that learns.
    """
    layered: Any = model
    if num_layers == 0 or not hasattr(model, "layer_index"):
        return
    for name, parameter in model.named_parameters():
        if layered.layer_index(name) < num_layers:
            parameter.requires_grad_(False)
    for block in list(layered.blocks)[: num_layers - 1]:
        block.drop_path.drop_prob = 0.0
