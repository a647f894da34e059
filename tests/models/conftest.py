"""The golden figures of the published model, and the formulas that give its weights and inputs."""

import json
import math
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="session")
def golden_outputs():
    return json.loads((GOLDEN / "outputs.json").read_text())


@pytest.fixture
def fill_by_formula():
    """Return a function that gives a model the golden weights, in place."""

    def fill(model):
        state = model.state_dict()
        for k, key in enumerate(sorted(state)):
            position = torch.arange(state[key].numel(), dtype=torch.float64)
            values = 0.05 * torch.sin(0.37 * position + k)
            if "norm" in key and key.endswith("weight"):
                values += 1
            state[key] = values.reshape(state[key].shape).float()
        model.load_state_dict(state)
        return model

    return fill


@pytest.fixture
def input_by_formula():
    """Return a function from a shape to the golden input."""

    def make(shape):
        i = torch.arange(math.prod(shape), dtype=torch.float64)
        return torch.sin(0.0137 * i * (1 + 0.5 * torch.sin(0.00091 * i))).float().reshape(shape)

    return make
