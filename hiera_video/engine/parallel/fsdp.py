"""FSDP2: shard weights, gradients and optimizer state over processes, and gather them again.

Importing PyTorch's FSDP takes a second, so it is imported only where a model is sharded. Elsewhere
a DTensor is recognised by a method that only it has.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from hiera_video.utils import dist

T = TypeVar("T")

# Lists of layers; each layer is gathered, used and freed by itself.
_BLOCKS = ("blocks", "decoder_blocks")


def shard(model: nn.Module, device: torch.device, *, mixed_precision: bool) -> None:
    """Shard the model's parameters over all processes, block by block, in place.

    With `mixed_precision`, parameters are gathered and used in bfloat16; gradients are summed and
    weights are kept in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (dist.world_size(),))
    # Do not cast the clips: autocast uses bfloat16 where that is safe.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if mixed_precision else None,
        reduce_dtype=torch.float32 if mixed_precision else None,
        cast_forward_inputs=False,
    )
    for name in _BLOCKS:
        for block in getattr(model, name, ()):
            fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    model.register_load_state_dict_pre_hook(_cut_up_what_is_loaded)
    # FSDP moves all input tensors to the GPU. Hide the masks from its hook: they must stay on the
    # CPU, or the host would wait for the GPU to read them.
    model.register_forward_pre_hook(_hide_masks, prepend=True, with_kwargs=True)
    model.register_forward_pre_hook(_show_masks, with_kwargs=True)


@dataclass(frozen=True, slots=True)
class _Hidden:
    mask: torch.Tensor


def _hide_masks(
    module: nn.Module, arguments: tuple[Any, ...], settings: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def hide(value: Any) -> Any:
        is_mask = isinstance(value, torch.Tensor) and value.dtype == torch.bool
        return _Hidden(value) if is_mask else value

    return tuple(map(hide, arguments)), {name: hide(value) for name, value in settings.items()}


def _show_masks(
    module: nn.Module, arguments: tuple[Any, ...], settings: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def show(value: Any) -> Any:
        return value.mask if isinstance(value, _Hidden) else value

    return tuple(map(show, arguments)), {name: show(value) for name, value in settings.items()}


def is_sharded(model: nn.Module) -> bool:
    """Say whether `shard` has sharded the model."""
    return hasattr(model, "set_requires_gradient_sync")


def is_share(value: object) -> bool:
    """Say whether this is a DTensor, of which this process holds a part."""
    return isinstance(value, torch.Tensor) and hasattr(value, "full_tensor")


def share_gradients(model: nn.Module, *, now: bool) -> None:
    """Choose whether the next backward pass reduces the gradients, or accumulates them here."""
    model.set_requires_gradient_sync(now)  # type: ignore[operator]


def whole(state: T) -> T:
    """Return a state dict with full tensors in place of DTensors; all processes call it.

    Rank 0 gets them, on the CPU; in the other processes they are empty.
    """
    if isinstance(state, dict):
        return type(state)((name, whole(value)) for name, value in state.items())
    if isinstance(state, list):
        return [whole(value) for value in state]  # type: ignore[return-value]
    if not is_share(state):
        return state
    tensor = state.full_tensor()  # type: ignore[attr-defined]
    return tensor.cpu() if dist.is_main() else tensor.new_empty(0)


def gathered(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's full state dict, in every process; all processes call it."""
    return {
        name: value.full_tensor() if is_share(value) else value
        for name, value in model.state_dict().items()
    }


def share_of(like: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Shard a full tensor like the DTensor `like`; return it as it is if `like` is none."""
    if not is_share(like) or is_share(value) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def share_out(optimizer: torch.optim.Optimizer) -> None:
    """Shard full tensors in the optimizer's state like the parameters they belong to."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                state[name] = share_of(parameter, value)


def _cut_up_what_is_loaded(
    model: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_: Any
) -> None:
    for name, parameter in model.named_parameters(prefix.removesuffix(".")):
        if name in state:
            state[name] = share_of(parameter, state[name])


def total_norm(norm: torch.Tensor) -> torch.Tensor:
    """Return the gradient norm over all processes, given that of `clip_grad_norm_`, on its device.

    With FSDP that is a DTensor, each process's part of the norm.
    """
    return norm.full_tensor() if is_share(norm) else norm  # type: ignore[attr-defined]
