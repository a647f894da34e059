"""AdamW is fused, and takes up the state of one that was not."""

import copy

import torch

from hiera_video.config import load_config
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.solver.build import build_optimizer


def stepped(optimizer, model):
    torch.manual_seed(1)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def test_the_state_of_an_optimizer_that_was_not_fused_goes_on_alike():
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", [])
    torch.manual_seed(0)
    model = hiera_micro_8x64(num_classes=8)
    optimizer = build_optimizer(cfg, model)
    stepped(optimizer, model)
    state, weights = copy.deepcopy((optimizer.state_dict(), model.state_dict()))
    stepped(optimizer, model)

    other = hiera_micro_8x64(num_classes=8)
    other.load_state_dict(weights)
    resumed = build_optimizer(cfg, other)
    old = [{**group, "fused": None, "foreach": None} for group in state["param_groups"]]
    resumed.load_state_dict({**state, "param_groups": old})
    assert all(group["fused"] for group in resumed.param_groups)
    stepped(resumed, other)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
