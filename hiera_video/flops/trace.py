"""Trace a model on the meta device for fvcore, in little time and no memory.

A model on the meta device has shapes and no values, so tracing Hiera-H takes a second. PyTorch's
tracer does not support this in two places. While tracing, sizes are tensors, which the meta
device's shape functions cannot handle. And a convolution on meta leaves no node in the graph, so
counters miss it silently. `memoryless_trace` works around both without changing the model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def memoryless_trace(model: nn.Module) -> Iterator[None]:
    """Make PyTorch's tracer record a model on the meta device as it would one on a CPU.

    A product or convolution is attributed to the module that holds its weight, even if another
    module uses that weight.
    """
    owners = {
        id(parameter): name
        for name, module in model.named_modules()
        for parameter in module.parameters(recurse=False)
    }
    with (
        ThreadPoolExecutor(max_workers=1) as bystander,
        torch.no_grad(),
        _ShapesUntraced(bystander),
        _WeightsRecorded(owners),
    ):
        yield


class _ShapesUntraced(TorchDispatchMode):
    """Compute each operator's output in another thread: tracing is per thread."""

    def __init__(self, bystander: ThreadPoolExecutor) -> None:
        super().__init__()
        self._bystander = bystander

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if any(output.alias_info for output in func._schema.returns):
            # A view or in-place operator: autograd in the other thread would record its base twice.
            return func(*args, **kwargs)
        if func is torch.ops.aten._convolution.default:
            # On meta only the public operator works; it lacks the four backend flags.
            func, args = torch.ops.aten.convolution.default, args[:9]
        return self._bystander.submit(_without_gradients, func, args, kwargs).result()


def _without_gradients(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    with torch.no_grad():  # the setting is per thread
        return func(*args, **kwargs)


class _WeightsRecorded(TorchFunctionMode):
    """Record which module owns a weight, and make convolutions on meta visible to the tracer."""

    def __init__(self, owners: Mapping[int, str]) -> None:
        super().__init__()
        self._owners = owners

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _WEIGHTED:
            return func(*args, **kwargs)
        weight = kwargs["weight"] if "weight" in kwargs else args[1]
        with _scope(self._owners.get(id(weight))):
            return _WEIGHTED[func](*args, **kwargs)


@contextmanager
def _scope(name: str | None) -> Iterator[None]:
    """Attribute operators in the block to module `name`; None: to the running module."""
    state = torch._C._get_tracing_state()
    if state is None or name is None:
        yield
        return
    state.push_scope(name)
    try:
        yield
    finally:
        state.pop_scope()


def _convolution(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    if isinstance(padding, str):  # PyTorch has a separate internal function for "same" and "valid"
        return torch._convolution_mode(
            input, weight, bias, _each(stride, weight), padding, _each(dilation, weight), groups
        )
    return _inner_convolution(input, weight, bias, stride, padding, dilation, groups)


def _transposed_convolution(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> torch.Tensor:
    return _inner_convolution(
        input, weight, bias, stride, padding, dilation, groups, output_padding
    )


def _inner_convolution(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    output_padding: Any = None,
) -> torch.Tensor:
    """Call `torch._convolution`, which every convolution ends in and every device's trace shows."""
    transposed = output_padding is not None
    return torch._convolution(
        input,
        weight,
        bias,
        _each(stride, weight),
        _each(padding, weight),
        _each(dilation, weight),
        transposed,
        _each(output_padding if transposed else 0, weight),
        groups,
        benchmark=False,
        deterministic=False,
        cudnn_enabled=False,
        allow_tf32=False,
    )


def _each(value: Any, weight: torch.Tensor) -> list[int]:
    """Return one value for each spatial dimension of a convolution's weight."""
    return [value] * (weight.dim() - 2) if isinstance(value, int) else list(value)


_WEIGHTED: Mapping[Any, Callable[..., torch.Tensor]] = MappingProxyType(
    dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution)
    | dict.fromkeys(
        (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        _transposed_convolution,
    )
    | {F.linear: F.linear}
)
