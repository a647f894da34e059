"""Drop path: what is dropped, what it does to gradients, and what is not computed."""

import pytest
import torch
from torch import nn

from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.parts.layers import DropPath, MaskUnitAttention, Mlp
from hiera_video.utils.errors import UserError

KINDS = ["cpu", "compiled", pytest.param("cuda", marks=pytest.mark.gpu)]


def run(path, branch, skip, inputs, *, seed=0):
    """Return the sum, and how many clips the branch was computed for."""
    seen = []

    def watched(some):
        seen.append(len(some))
        return branch(some)

    torch.manual_seed(seed)
    return path(skip, inputs, watched), seen[0]


def weights_of(out, skip, update):
    """Return what each clip's update was multiplied by, which must be one number for a clip."""
    ratio = ((out - skip) / update).flatten(1)
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), atol=1e-4)
    return ratio[:, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_clips", [1, 2, 64])
def test_a_clip_has_its_branch_scaled_or_not_at_all(monkeypatch, kind, num_clips):
    device = "cuda" if kind == "cuda" else "cpu"
    if kind == "compiled":  # what is run then; the compiler itself takes too long for this
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    path = DropPath(0.4).train()
    skip, inputs = torch.randn(2, num_clips, 3, 5, device=device)
    kept = []
    for seed in range(40):
        out, computed = run(path, torch.exp, skip, inputs, seed=seed)
        weights = weights_of(out, skip, inputs.exp())
        is_kept = weights > 0
        assert torch.allclose(weights[is_kept], torch.tensor(1 / 0.6, device=device), atol=1e-4)
        assert (weights[~is_kept] == 0).all()
        assert computed == (max(int(is_kept.sum()), 1) if kind == "cpu" else num_clips)
        kept.append(is_kept.double().mean().item())
    # 40 to 2,560 draws: three standard deviations.
    assert sum(kept) / 40 == pytest.approx(0.6, abs=3 * (0.24 / (40 * num_clips)) ** 0.5)


@pytest.mark.parametrize(("probability", "training"), [(0.0, True), (0.9, False)])
def test_nothing_is_dropped_or_scaled_in_evaluation_or_at_a_rate_of_zero(probability, training):
    path = DropPath(probability).train(training)
    skip, inputs = torch.randn(2, 8, 3)
    state = torch.get_rng_state()
    assert torch.equal(path(skip, inputs, torch.exp), skip + inputs.exp())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", range(8))
def test_gradients_are_those_of_the_product_with_the_drawn_weights(seed):
    torch.manual_seed(100)
    path, linear = DropPath(0.5).train(), nn.Linear(4, 6).double()
    skip = torch.randn(3, 5, 6, dtype=torch.double, requires_grad=True)
    inputs = torch.randn(3, 5, 4, dtype=torch.double, requires_grad=True)
    learning = [skip, inputs, *linear.parameters()]
    out, _ = run(path, linear, skip, inputs, seed=seed)
    weights = weights_of(out, skip, linear(inputs)).detach()
    expected = torch.autograd.grad(
        (skip + linear(inputs) * weights.view(3, 1, 1)).square().sum(), learning
    )
    for one, other in zip(torch.autograd.grad(out.square().sum(), learning), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def test_where_all_clips_are_dropped_the_weights_still_have_a_gradient_of_zero():
    # DistributedDataParallel waits for the gradients of all weights, whatever was drawn.
    path, linear = DropPath(0.99).train(), nn.Linear(4, 4)
    skip, inputs = torch.randn(2, 3, 4)
    out, computed = run(path, linear, skip, inputs)
    assert torch.equal(out, skip)
    assert computed == 1
    out.sum().backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in linear.parameters())


def test_under_bfloat16_the_sum_has_the_type_of_the_skip_path():
    path, linear = DropPath(0.5).train(), nn.Linear(4, 4)
    skip, inputs = torch.randn(2, 8, 4)
    for seed in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            out, _ = run(path, linear, skip, inputs, seed=seed)
        assert out.dtype == torch.float32


def test_a_rate_at_which_nothing_is_left_is_refused():
    with pytest.raises(UserError, match="drop_path_rate must be at least 0 and below 1, got 1"):
        hiera_micro_8x64(drop_path_rate=1.0)


def test_in_the_model_a_dropped_branch_is_not_computed():
    model = hiera_micro_8x64(drop_path_rate=0.6).train()
    computed = {MaskUnitAttention: 0, Mlp: 0}

    def count(module, inputs, output):
        computed[type(module)] += len(inputs[0])

    for module in model.modules():
        if type(module) in computed:
            module.register_forward_hook(count)
    torch.manual_seed(0)
    model(torch.randn(32, 3, 8, 64, 64))
    # 5 blocks at rates of 0 to 0.6: 112 of 160, and three standard deviations.
    for num_clips in computed.values():
        assert num_clips == pytest.approx(112, abs=3 * 4.9)
