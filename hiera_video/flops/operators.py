"""The cost of each operator in a trace, and the operators that cost nothing by convention.

Names are those in PyTorch's graph, such as `aten::linear`. Handles are fvcore's wherever its own
handle is correct.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

from fvcore.nn import jit_handles

# An fvcore handle maps the inputs and outputs of a graph node to counts by name.
Handle = Callable[[Sequence[Any], Sequence[Any]], Any]


def _shape(value: Any) -> list[int]:
    shape = jit_handles.get_shape(value)
    assert shape is not None, "a trace of an example has shapes throughout"
    return shape


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Count query x key and weights x value; the softmax between them counts as elementwise."""
    query, key, mixed = _shape(inputs[0]), _shape(inputs[1]), _shape(outputs[0])
    return Counter({"attention": prod(mixed[:-1]) * key[-2] * (query[-1] + mixed[-1])})


def _product(left: int) -> Handle:
    """Return the handle of a matrix product whose left factor is input `left` of the node."""

    def count(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        return prod(_shape(outputs[0])) * _shape(inputs[left])[-1]

    return count


def _padded_convolution(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    return Counter({"conv": prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:])})


# PyTorch's names for the same fused kernel; they depend on the device and the version.
_ATTENTION = (
    "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_attention_math",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_fused_attention_overrideable",
)
PRODUCTS: Mapping[str, Handle] = MappingProxyType(
    {
        "aten::_convolution": jit_handles.conv_flop_jit,
        "aten::_convolution_mode": _padded_convolution,
        "aten::einsum": jit_handles.einsum_flop_jit,
        # fvcore's own handle of matmul ignores a batch dimension that only the right factor has.
        **{f"aten::{name}": _product(0) for name in ("linear", "matmul", "mm", "bmm", "mv", "dot")},
        **{f"aten::{name}": _product(1) for name in ("addmm", "baddbmm", "addmv")},
        **dict.fromkeys(_ATTENTION, _attention),
    }
)
# Five operations per value, as in fvcore. Batch norms fold into convolutions and are not counted.
NORMS: Mapping[str, Handle] = MappingProxyType(
    {
        "aten::layer_norm": jit_handles.norm_flop_counter(2),
        "aten::group_norm": jit_handles.norm_flop_counter(2),
    }
)
ACTIVATIONS: Mapping[str, Handle] = MappingProxyType(
    {name: jit_handles.generic_activation_jit() for name in PRODUCTS}
    | dict.fromkeys(
        ("aten::_convolution", "aten::_convolution_mode"),
        jit_handles.generic_activation_jit("conv"),
    )
    | dict.fromkeys(_ATTENTION, jit_handles.generic_activation_jit("attention"))
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators that are not counted, by convention. A name covers its in-place form (add_). An operator
# in neither list and without a handle is reported as unknown: when in doubt, leave a name out.
ELEMENTWISE = _words(
    """
    abs add addcdiv addcmul all amax amin any argmax argmin argsort avg_pool1d avg_pool2d
    avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d batch_norm bernoulli bitwise_and bitwise_not bitwise_or
    ceil clamp clamp_max clamp_min cos cumsum div dropout eq erf exp feature_dropout floor
    floor_divide ge gelu gt hardsigmoid hardswish hardtanh le leaky_relu log log_softmax
    logical_and logical_not logical_or logsumexp lt max max_pool1d max_pool2d max_pool3d maximum
    mean min minimum mish mse_loss mul native_dropout ne neg norm pow prod rand rand_like randn
    randn_like reciprocal relu relu6 remainder round rsqrt rsub sigmoid sign silu sin softmax
    softplus sort sqrt square std std_mean sub sum tanh topk var var_mean where linalg_vector_norm
    l1_loss smooth_l1_loss cross_entropy_loss nll_loss nll_loss_nd __and__ __or__
    prim::PythonOp.SwishFunction
    """  # the last one is pytorchvideo's x * sigmoid(x)
)
DATA_MOVEMENT = _words(
    """
    Bool Float Int ScalarImplicit alias arange as_strided broadcast_tensors broadcast_to cat chunk
    clone concat concatenate constant_pad_nd contiguous copy detach diagonal empty empty_like expand
    expand_as fill flatten
    flip full full_like gather im2col index index_copy index_put index_select is_floating_point item
    lift_fresh linspace masked_fill masked_scatter masked_select meshgrid movedim narrow new_empty
    new_full new_ones new_zeros nonzero nonzero_numpy ones ones_like pad permute repeat
    repeat_interleave reshape reshape_as resolve_conj resolve_neg roll scatter select size slice
    split split_with_sizes squeeze stack swapaxes swapdims t take take_along_dim tensor_split tile
    to transpose type_as unbind unflatten unfold unsqueeze view view_as zero zeros zeros_like
    _unsafe_view
    """
)
