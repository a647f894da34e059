"""One function makes probabilities of clips, one picks devices, for all that use models."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

import hiera_video
from hiera_video.models.parts.scores import pick_device, probabilities
from hiera_video.utils.errors import UserError

PACKAGE = Path(hiera_video.__file__).parent
# The published package's models end in a softmax, which a benchmark compares with.
MAY = {"models/parts/scores.py", "benchmark/timing.py"}
# These ask what there is, and pick none.
ASK = {"doctor/machine.py", "engine/checkpoint_content.py", "engine/parallel/processes.py"}


def clips(number=3):
    return torch.randn(number, 4, generator=torch.Generator().manual_seed(0))


def test_probabilities_are_float32_rows_that_sum_to_one():
    model = nn.Linear(4, 5).eval()
    found = probabilities(model, clips(), mixed_precision=False)
    assert (found.dtype, found.shape, found.requires_grad) == (torch.float32, (3, 5), False)
    assert torch.allclose(found.sum(-1), torch.ones(3))
    assert torch.equal(found, model(clips()).softmax(-1))


def test_mixed_precision_is_bfloat16_on_a_cpu_too():
    model = nn.Linear(4, 5).eval()
    found = probabilities(model, clips(), mixed_precision=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(clips())
    assert logits.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.equal(found, logits.float().softmax(-1))


def test_outputs_that_are_not_finite_are_refused():
    model = nn.Linear(4, 5)
    with torch.no_grad():
        model.bias[2] = torch.nan
    with pytest.raises(UserError, match="outputs are not finite: its weights are broken"):
        probabilities(model, clips(), mixed_precision=False)


def test_a_device_is_named_by_the_setting_that_asked_for_it():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"^--device must be one of this machine \(cpu.*'gpu'"):
        pick_device("gpu", key="--device")


def names_called(path):
    return {
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }


def test_no_other_file_makes_probabilities_or_picks_a_device():
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in MAY:
            assert not names_called(path) & {"softmax", "autocast"}, name
        if name not in MAY | ASK:
            assert "cuda.is_available" not in path.read_text(), name
