"""What a model costs: multiply-adds, parameters and activations, by stage and by operator.

Counted by fvcore on a trace of one clip (`flops_trace`) with the handles of `flops_operators`.
Whatever is not counted is named.

Shape suffixes: B clips, U mask units; X is the clip's own dimensions, `CTHW` or `CHW`.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, parameter_count
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hiera_video.flops.operators import (
    ACTIVATIONS,
    DATA_MOVEMENT,
    ELEMENTWISE,
    NORMS,
    PRODUCTS,
    Handle,
)
from hiera_video.flops.trace import memoryless_trace
from hiera_video.models.parts.encoder import HieraEncoder

# Of the products, which PyTorch's own counter may find beyond ours before that is told.
_TOLERANCE = 1e-3
_ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class StageCost:
    """A part of the model, by name."""

    name: str
    multiply_adds: int
    parameters: int
    activations: int


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """An operator that is counted, under fvcore's name."""

    name: str
    multiply_adds: int
    activations: int


@dataclass(frozen=True, slots=True)
class ModelCost:
    """One forward pass of one clip.

    `activations` are the values that products and attention put out. `elementwise` and
    `data_movement` are not counted by convention, `unknown` because nothing is known of them: calls
    of each. `uncalled_modules` hold parameters and were never called as modules.
    `products_by_torch` are the multiply-adds of products, convolutions and attention that PyTorch's
    own counter finds; `products` are those of the trace.
    """

    multiply_adds: int
    parameters: int
    activations: int
    stages: tuple[StageCost, ...]
    operators: tuple[OperatorCost, ...]
    elementwise: Mapping[str, int]
    data_movement: Mapping[str, int]
    unknown: Mapping[str, int]
    uncalled_modules: tuple[str, ...]
    products: int
    products_by_torch: int

    @property
    def incomplete(self) -> bool:
        """Whether the total may be too low."""
        return bool(self.unknown) or self.lost_products

    @property
    def lost_products(self) -> bool:
        """Whether PyTorch's own counter finds products, convolutions or attention that we miss."""
        return self.products_by_torch > (1 + _TOLERANCE) * self.products


def count(
    model: nn.Module, clips_BX: torch.Tensor, *, given: Mapping[str, Any] | None = None
) -> ModelCost:
    """Count a forward pass of `clips_BX`, with the keyword arguments `given`, in evaluation mode.

    On the meta device, where a tensor has a shape and no numbers, this takes about two seconds and
    no memory, however large the model.
    """
    model.eval()
    flops, activations = _FlopCount(model, clips_BX), _ActivationCount(model, clips_BX)
    with _called_with(model, given or {}):
        with memoryless_trace(model):
            by_operator, outputs = flops.by_operator(), activations.by_operator()
        with FlopCounterMode(display=False) as torch_counter, torch.no_grad():
            model(clips_BX)
    norms = sum(by_operator[kind.removeprefix("aten::")] for kind in NORMS)
    elementwise, data_movement, unknown = _sorted_out(flops.unsupported_ops())
    return ModelCost(
        multiply_adds=round(flops.total()),
        parameters=parameter_count(model)[""],
        activations=round(activations.total()),
        stages=tuple(_by_stage(model, flops.by_module(), activations.by_module())),
        operators=tuple(
            OperatorCost(name, round(number), round(outputs[name]))
            for name, number in by_operator.most_common()
        ),
        elementwise=elementwise,
        data_movement=data_movement,
        unknown=unknown,
        uncalled_modules=_with_parameters(model, flops.uncalled_modules()),
        products=round(flops.total() - norms),
        products_by_torch=torch_counter.get_total_flops() // 2,  # a multiply-add is two to it
    )


class _FlopCount(FlopCountAnalysis):
    """fvcore's count with our handles; everything that has none is listed."""

    def __init__(self, model: nn.Module, clips_BX: torch.Tensor) -> None:
        super().__init__(model, clips_BX)
        _prepare(self, {**PRODUCTS, **NORMS})


class _ActivationCount(ActivationCountAnalysis):
    def __init__(self, model: nn.Module, clips_BX: torch.Tensor) -> None:
        super().__init__(model, clips_BX)
        _prepare(self, ACTIVATIONS)


def _prepare(
    analysis: FlopCountAnalysis | ActivationCountAnalysis, handles: Mapping[str, Handle]
) -> None:
    analysis.clear_op_handles().set_op_handle(**handles)
    analysis._ignored_ops = set()  # fvcore passes over these without a word
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")


@contextmanager
def _called_with(model: nn.Module, given: Mapping[str, Any]) -> Iterator[None]:
    """Add keyword arguments to each call of the model; the tracer passes only tensors, in order."""
    hook = model.register_forward_pre_hook(
        lambda module, arguments, keywords: (arguments, {**keywords, **given}), with_kwargs=True
    )
    try:
        yield
    finally:
        hook.remove()


def _by_stage(
    model: nn.Module, flops: Mapping[str, int], activations: Mapping[str, int]
) -> Iterator[StageCost]:
    parameters = parameter_count(model)
    left = [flops[""], parameters[""], activations[""]]
    for name, parts in stage_parts(model).items():
        cost = [sum(of.get(part, 0) for part in parts) for of in (flops, parameters, activations)]
        left = [before - here for before, here in zip(left, cost, strict=True)]
        if any(cost):
            yield StageCost(name, *map(round, cost))
    if any(left):
        yield StageCost(_ELSEWHERE, *map(round, left))


def stage_parts(model: nn.Module) -> dict[str, list[str]]:
    """Return the modules and parameters of each stage by name, in the order of the forward pass.

    Models other than Hiera have their children for stages.
    """
    if isinstance(model, HieraEncoder):
        stages: dict[str, list[str]] = {"patch embedding": list(_EMBEDDING)}
        for index, plan in enumerate(model.plans):
            stages.setdefault(f"stage {plan.stage + 1}", []).append(f"blocks.{index}")
        return stages | {name: list(parts) for name, parts in _AFTER_STAGES.items()}
    prefix = ""
    children = dict(model.named_children())
    while len(children) == 1:  # a network that is one list, as pytorchvideo's are
        ((name, child),) = children.items()
        if not (inside := dict(child.named_children())):
            break
        prefix, children = f"{prefix}{name}.", inside
    return {prefix + name: [prefix + name] for name in children}


_EMBEDDING = ("patch_embed", "pos_embed", "pos_embed_spatial", "pos_embed_temporal")
_AFTER_STAGES = {
    "fusion": ("multi_scale_fusion_heads", "encoder_norm"),
    "decoder": (
        "decoder_embed",
        "mask_token",
        "decoder_pos_embed",
        "decoder_blocks",
        "decoder_norm",
        "decoder_pred",
    ),
    "head": ("norm", "head"),
}


def _sorted_out(calls: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Sort operators into elementwise, data movement and unknown ones, the most frequent first."""
    sorted_out: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
    for kind, number in sorted(calls.items(), key=lambda item: (-item[1], item[0])):
        name = kind.removeprefix("aten::")
        plain = name if name.startswith("__") else name.removesuffix("_")  # add_ is add, in place
        place = 0 if plain in ELEMENTWISE else 1 if plain in DATA_MOVEMENT else 2
        sorted_out[place][name] = number
    return sorted_out


def _with_parameters(model: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """Return those modules of `names` that hold parameters themselves."""
    modules = dict(model.named_modules())
    return tuple(name for name in sorted(names) if [*modules[name].parameters(recurse=False)])
