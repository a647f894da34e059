"""Count the multiply-adds, parameters and activations of a model, by stage and by operator.

fvcore counts on a trace of one clip (`flops.trace`) with the handles of `flops.operators`. The
result names every operator that was not counted.

Shape suffixes: B clips, U mask units; X is the clip's own dimensions, `CTHW` or `CHW`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis, parameter_count
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

# Fraction by which PyTorch's own counter may exceed our products before the report warns.
_TOLERANCE = 1e-3
_ELSEWHERE = "elsewhere"
_OUTPUT = "+"  # marks the activations of an operator, beside its multiply-adds


@dataclass(frozen=True, slots=True)
class StageCost:
    """The cost of one part of the model."""

    name: str
    multiply_adds: int
    parameters: int
    activations: int


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """The cost of one counted operator, under fvcore's name."""

    name: str
    multiply_adds: int
    activations: int


@dataclass(frozen=True, slots=True)
class ModelCost:
    """The cost of one forward pass of one clip.

    `activations` is the number of values that products, convolutions and attention output.
    `elementwise`, `data_movement` and `unknown` hold the number of calls of operators that are not
    counted: the first two by convention, the last because no handle is known. `uncalled_modules`
    hold parameters and were never called as modules. `products` are the multiply-adds of products,
    convolutions and attention in the trace; `products_by_torch` are those that PyTorch's own
    counter finds.
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
        """Whether PyTorch's own counter finds products, convolutions or attention we missed."""
        return self.products_by_torch > (1 + _TOLERANCE) * self.products


def count(
    model: nn.Module, clips_BX: torch.Tensor, *, given: Mapping[str, Any] | None = None
) -> ModelCost:
    """Count the cost of `model(clips_BX, **given)` in evaluation mode.

    On the meta device tensors have shapes and no values. There the count takes about two seconds
    and no memory, however large the model.
    """
    model.eval()
    trace = _Count(model, clips_BX)
    with _called_with(model, given or {}):
        with memoryless_trace(model):
            flops, activations = trace.by_module()
        with FlopCounterMode(display=False) as torch_counter, torch.no_grad():
            model(clips_BX)
    by_operator, outputs = flops[""], activations[""]
    total, norms = by_operator.total(), sum(by_operator[_plain(kind)] for kind in NORMS)
    elementwise, data_movement, unknown = _classify(trace.unsupported_ops())
    modules = dict(model.named_modules())
    uncalled = sorted(
        name for name in trace.uncalled_modules() if [*modules[name].parameters(recurse=False)]
    )
    return ModelCost(
        multiply_adds=round(total),
        parameters=parameter_count(model)[""],
        activations=round(outputs.total()),
        stages=tuple(_by_stage(model, flops, activations)),
        operators=tuple(
            OperatorCost(name, round(number), round(outputs[name]))
            for name, number in by_operator.most_common()
        ),
        elementwise=elementwise,
        data_movement=data_movement,
        unknown=unknown,
        uncalled_modules=tuple(uncalled),
        products=round(total - norms),
        products_by_torch=torch_counter.get_total_flops() // 2,  # it counts a multiply-add as 2
    )


class _Count:
    """fvcore's count with our handles: multiply-adds and activations of one trace."""

    def __init__(self, model: nn.Module, clips_BX: torch.Tensor) -> None:
        self._analysis = FlopCountAnalysis(model, clips_BX).clear_op_handles()
        self._analysis.set_op_handle(
            **{kind: _both(kind, handle) for kind, handle in {**PRODUCTS, **NORMS}.items()}
        )
        self._analysis._ignored_ops = set()  # fvcore skips these silently
        self._analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        self._analysis.tracer_warnings("none")
        self.unsupported_ops = self._analysis.unsupported_ops
        self.uncalled_modules = self._analysis.uncalled_modules

    def by_module(self) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
        """Return the multiply-adds and the activations by operator, for each module's name."""
        flops, activations = {}, {}
        for name, found in self._analysis.by_module_and_operator().items():
            activations[name] = Counter({k[1:]: n for k, n in found.items() if k[0] == _OUTPUT})
            flops[name] = Counter({k: n for k, n in found.items() if k[0] != _OUTPUT})
        return flops, activations


def _both(kind: str, cost: Handle) -> Handle:
    """Return a handle that counts the multiply-adds of an operator and, marked, its activations."""
    outputs = ACTIVATIONS.get(kind, lambda *_: 0)

    def count(node_inputs: Sequence[Any], node_outputs: Sequence[Any]) -> Counter[str]:
        counted = Counter[str]()
        for mark, handle in (("", cost), (_OUTPUT, outputs)):
            found = handle(node_inputs, node_outputs)
            by_name = found if isinstance(found, Counter) else {_plain(kind): found}
            counted.update({mark + name: number for name, number in by_name.items()})
        return counted

    return count


def _plain(kind: str) -> str:
    return kind.removeprefix("aten::")


@contextmanager
def _called_with(model: nn.Module, given: Mapping[str, Any]) -> Iterator[None]:
    """Add `given` to each call of the model: the tracer passes positional tensors only."""
    hook = model.register_forward_pre_hook(
        lambda module, arguments, keywords: (arguments, {**keywords, **given}), with_kwargs=True
    )
    try:
        yield
    finally:
        hook.remove()


def _by_stage(
    model: nn.Module,
    by_operator: Mapping[str, Counter[str]],
    outputs: Mapping[str, Counter[str]],
) -> Iterator[StageCost]:
    parameters = parameter_count(model)
    flops, activations = (
        {name: counted.total() for name, counted in of.items()} for of in (by_operator, outputs)
    )
    left = [flops[""], parameters[""], activations[""]]
    for name, parts in stage_parts(model).items():
        cost = [sum(of.get(part, 0) for part in parts) for of in (flops, parameters, activations)]
        left = [before - here for before, here in zip(left, cost, strict=True)]
        if any(cost):
            yield StageCost(name, *map(round, cost))
    if any(left):
        yield StageCost(_ELSEWHERE, *map(round, left))


def stage_parts(model: nn.Module) -> dict[str, list[str]]:
    """Return the names of the modules and parameters in each stage, in forward order.

    A model other than Hiera has one stage for each child module.
    """
    if isinstance(model, HieraEncoder):
        stages: dict[str, list[str]] = {"patch embedding": list(_EMBEDDING)}
        for index, plan in enumerate(model.plans):
            stages.setdefault(f"stage {plan.stage + 1}", []).append(f"blocks.{index}")
        return stages | {name: list(parts) for name, parts in _AFTER_STAGES.items()}
    prefix = ""
    children = dict(model.named_children())
    while len(children) == 1:  # pytorchvideo wraps the whole network in one list
        ((name, child),) = children.items()
        if not (inside := dict(child.named_children())):
            break
        prefix, children = f"{prefix}{name}.", inside
    return {prefix + name: [prefix + name] for name in children}


_EMBEDDING = (
    "patch_embed",
    "class_token",
    "mask_token_encoder",
    "pos_embed",
    "pos_embed_spatial",
    "pos_embed_temporal",
)
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


def _classify(calls: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Split operators into elementwise, data movement and unknown ones, most frequent first."""
    classes: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
    for kind, number in sorted(calls.items(), key=lambda item: (-item[1], item[0])):
        name = kind.removeprefix("aten::")
        plain = name if name.startswith("__") else name.removesuffix("_")  # add_ is in-place add
        place = 0 if plain in ELEMENTWISE else 1 if plain in DATA_MOVEMENT else 2
        classes[place][name] = number
    return classes
