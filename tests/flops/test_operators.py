"""What each operator costs, and that nothing which is not counted goes unsaid."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hiera_video.flops.count import count
from hiera_video.flops.report import Report
from hiera_video.flops.table import not_counted


def test_activations_are_the_outputs_of_products():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 7))
        cost = count(model, torch.empty(2, 3, 8, 8))
    assert cost.activations == 2 * 4 * 6 * 6 + 2 * 7


class Applied(nn.Module):
    """A module around a function of the clips, and of parameters by name."""

    def __init__(self, function, **shapes):
        super().__init__()
        self.function = function
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.empty(shape)))

    def forward(self, clips):
        return self.function(self, clips)


OPERATORS = {
    "linear": (lambda m, x: F.linear(x, m.w), {"w": (5, 4)}, 2 * 3 * 4 * 5),
    "matmul": (lambda m, x: x @ m.w, {"w": (4, 5)}, 2 * 3 * 4 * 5),
    "matmul whose right side alone has a batch": (
        lambda m, x: m.w @ x,
        {"w": (6, 3)},
        2 * 6 * 3 * 4,
    ),
    "matmul of a vector": (lambda m, x: x @ m.w, {"w": (4,)}, 2 * 3 * 4),
    "bmm": (lambda m, x: torch.bmm(x, m.w), {"w": (2, 4, 5)}, 2 * 3 * 4 * 5),
    "baddbmm": (
        lambda m, x: torch.baddbmm(m.b, x, m.w),
        {"b": (2, 3, 5), "w": (2, 4, 5)},
        2 * 3 * 4 * 5,
    ),
    "mm": (lambda m, x: torch.mm(x[0], m.w), {"w": (4, 5)}, 3 * 4 * 5),
    "addmm": (lambda m, x: torch.addmm(m.b, x[0], m.w), {"b": (5,), "w": (4, 5)}, 3 * 4 * 5),
    "mv": (lambda m, x: torch.mv(x[0], m.w), {"w": (4,)}, 3 * 4),
    "einsum": (lambda m, x: torch.einsum("bnd,md->bnm", x, m.w), {"w": (5, 4)}, 2 * 3 * 4 * 5),
    "conv1d": (lambda m, x: F.conv1d(x, m.w), {"w": (5, 3, 2)}, 2 * 5 * 3 * 2 * 3),
    "conv1d in groups": (
        lambda m, x: F.conv1d(x, m.w, groups=3, padding=1),
        {"w": (6, 1, 3)},
        2 * 6 * 1 * 3 * 4,
    ),
    "conv1d padded by name": (
        lambda m, x: F.conv1d(x, weight=m.w, padding="same"),
        {"w": (5, 3, 2)},
        2 * 5 * 3 * 2 * 4,
    ),
    "conv2d": (
        lambda m, x: F.conv2d(x[None], m.w, stride=(1, 2), dilation=1),
        {"w": (5, 2, 1, 2)},
        5 * 2 * 2 * 3 * 2,
    ),
    "conv_transpose1d": (
        lambda m, x: F.conv_transpose1d(x, m.w, stride=2, output_padding=1),
        {"w": (3, 5, 2)},
        2 * 3 * 5 * 2 * 4,
    ),
    "attention": (
        lambda m, x: F.scaled_dot_product_attention(x, m.k, m.v),
        {"k": (2, 7, 4), "v": (2, 7, 6)},
        2 * 3 * 7 * (4 + 6),
    ),
    "attention of several heads": (
        lambda m, x: F.scaled_dot_product_attention(x[None], m.k[None], m.k[None], is_causal=True),
        {"k": (2, 3, 4)},
        2 * 3 * 3 * (4 + 4),
    ),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_each_operator_costs_its_multiply_adds(operator, device):
    function, shapes, expected = OPERATORS[operator]
    with torch.device(device):
        model, clips = Applied(function, **shapes), torch.empty(2, 3, 4)
    cost = count(model, clips)
    assert cost.multiply_adds == expected
    assert cost.unknown == {}
    # PyTorch's counter knows neither products of vectors nor the CPU's attention.
    if operator not in ("matmul of a vector", "mv") and (device == "meta" or "att" not in operator):
        assert cost.products_by_torch == expected
    assert not cost.incomplete


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return 2 * values


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda m, x: torch.fft.fft(x).real, "fft_fft"),
        (lambda m, x: Doubled.apply(x), "prim::PythonOp.Doubled"),
        (lambda m, x: F.bilinear(x, x, m.w), "bilinear"),
    ],
)
def test_an_operator_that_nobody_knows_is_named(function, name):
    with torch.device("meta"):
        model, clips = Applied(function, w=(5, 4, 4)), torch.empty(2, 3, 4)
    cost = count(model, clips)
    assert cost.unknown[name] == 1
    assert cost.incomplete


def test_attention_counts_under_the_names_of_its_kernels():
    def forward(module, clips):
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(clips[None], clips[None], clips[None])[0]

    cost = count(Applied(forward), torch.empty(2, 3, 4))
    assert [(one.name, one.multiply_adds) for one in cost.operators] == [
        ("attention", 2 * 2 * 9 * 4)
    ]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_transformer_layer_of_pytorch_is_counted_whole(device):
    # It has a fused form that is one operator to the tracer.
    with torch.device(device):
        layer, tokens_BND = (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            torch.empty(1, 5, 8),
        )
    cost = count(layer, tokens_BND)
    assert cost.products == 5 * (4 * 8 * 8 + 2 * 5 * 8 + 2 * 8 * 16)
    assert not cost.incomplete


def test_products_that_leave_no_trace_are_told():
    def unused_product(module, clips):
        clips @ module.w  # the tracer drops what does not reach the output
        return clips + 1

    with torch.device("meta"):
        model, clips = Applied(unused_product, w=(4, 5)), torch.empty(2, 3, 4)
    cost = count(model, clips)
    assert (cost.products, cost.products_by_torch) == (0, 2 * 3 * 4 * 5)
    assert cost.lost_products
    assert cost.incomplete


def test_ignored_operators_are_listed_with_their_calls():
    def forward(module, clips):
        return F.max_pool1d((clips.add_(1) + clips).softmax(-1), 2).relu().reshape(-1)

    with torch.device("meta"):
        model, clips = Applied(forward), torch.empty(2, 3, 4)
    cost = count(model, clips)
    assert cost.elementwise == {"add": 1, "add_": 1, "max_pool1d": 1, "relu": 1, "softmax": 1}
    assert cost.data_movement["reshape"] == 1
    assert cost.multiply_adds == 0


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(4, 5)
        self.borrowed = nn.Linear(4, 6, bias=False)
        self.idle = nn.Linear(4, 7)
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, tokens):
        weight = self.borrowed.weight
        return self.used(tokens).sum() + (F.linear(tokens, weight) * self.scale).sum()


def test_weights_count_for_the_module_that_holds_them_and_idle_modules_are_named():
    cost = count(Owner(), torch.empty(3, 4))
    products = {stage.name: stage.multiply_adds for stage in cost.stages}
    assert products == {"used": 3 * 4 * 5, "borrowed": 3 * 4 * 6, "idle": 0, "elsewhere": 0}
    assert cost.uncalled_modules == ("idle",)
    assert cost.stages[-1].parameters == 6
    report = Report("owner", "", (4,), None, None, cost)
    assert not_counted([report]).startswith(
        "Modules with parameters in owner that were never called"
    )
    assert "counted in the module that runs it): idle\n" in not_counted([report])


def test_a_model_of_one_module_has_one_stage():
    cost = count(nn.Sequential(nn.Sequential(nn.Linear(4, 5))), torch.empty(3, 4))
    assert [(stage.name, stage.multiply_adds) for stage in cost.stages] == [("0.0", 3 * 4 * 5)]
