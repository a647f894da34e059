import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import hiera_video
from hiera_video.models.hiera import Hiera, hiera_micro_8x64
from hiera_video.models.parts import layers
from hiera_video.utils.errors import UserError

LAYOUT = json.loads((Path(__file__).parent.parent / "golden" / "state_layout.json").read_text())
CLASSIFIERS = [
    *(f"hiera_{size}_224" for size in ("tiny", "small", "base", "base_plus", "large", "huge")),
    *(f"hiera_{size}_16x224" for size in ("base", "base_plus", "large", "huge")),
]


def test_the_zoo_is_the_published_one_and_public():
    names = {*CLASSIFIERS, *(f"mae_{name}" for name in CLASSIFIERS)}
    assert names == set(LAYOUT)
    assert names <= set(hiera_video.__all__)


@pytest.mark.parametrize("name", LAYOUT)
def test_every_size_has_the_published_state_dict(name):
    with torch.device("meta"):
        model = getattr(hiera_video, name)()
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == LAYOUT[name]["state"]
    assert sum(p.numel() for p in model.parameters()) == LAYOUT[name]["parameters"]


@pytest.mark.parametrize("case", ["video_classify", "image_classify"])
def test_outputs_are_the_published_ones(case, golden_outputs, fill_by_formula, input_by_formula):
    golden = golden_outputs[case]
    model = fill_by_formula(Hiera(**golden["constructor"]).eval())
    with torch.no_grad():
        logits, maps = model(input_by_formula(golden["input_shape"]), return_intermediates=True)
    assert torch.allclose(logits.softmax(-1), torch.tensor(golden["probabilities"]), atol=1e-6)
    if case == "image_classify":
        assert [list(m.shape[1:]) for m in maps] == [
            [16, 16, 16],
            [8, 8, 32],
            [4, 4, 64],
            [2, 2, 128],
        ]
        return
    centred = logits - logits.mean(-1, keepdim=True)
    assert torch.allclose(centred, torch.tensor(golden["logits"]), atol=1e-5)
    assert [list(m.shape) for m in maps] == golden["intermediate_shapes"]
    for stage, feature_map in enumerate(maps):
        mean = golden["intermediate_mean_abs"][stage]
        assert feature_map.abs().mean().item() == pytest.approx(mean, abs=1e-5)
        corner = torch.tensor(golden["intermediate_corner"][stage])
        assert torch.allclose(feature_map[0, 0, 0, 0, :4], corner, atol=1e-5)
        last = torch.tensor(golden["intermediate_last"][stage])
        assert torch.allclose(feature_map[-1, -1, -1, -1, -4:], last, atol=1e-5)


def test_logits_are_the_same_function_in_training_and_evaluation():
    model = hiera_micro_8x64(num_classes=5).double()
    clips = torch.randn(2, 3, 8, 64, 64).double()
    assert torch.allclose(model.train()(clips), model.eval()(clips), atol=1e-12)


def test_initial_biases_and_head_scale_are_the_published_ones(golden_outputs):
    torch.manual_seed(0)
    model = Hiera(**golden_outputs["video_classify"]["constructor"])
    assert (model.blocks[0].attn.qkv.bias == 0.02).all()
    assert (model.blocks[0].norm1.bias == 0.02).all()
    assert torch.allclose(model.head.projection.bias, torch.tensor(0.02 * 0.001))
    assert model.head.projection.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.1)
    assert model.blocks[-1].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.pos_embed_spatial.std().item() == pytest.approx(0.02, rel=0.1)


def test_xavier_initialisation_has_its_spread_and_no_bias():
    model = hiera_micro_8x64(num_classes=5)
    weight = model.blocks[-1].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / sum(weight.shape)), rel=0.05)
    assert (model.blocks[0].attn.proj.bias == 0).all()


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((16, 225, 224), r"\(16, 224, 224\) or \(16, 256, 224\)"),
        ((15, 224, 224), r"\(14, 224, 224\) or \(16, 224, 224\)"),
        ((16, 16, 224), r"\(16, 32, 224\)"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_with_the_nearest_legal_ones(size, nearest):
    with pytest.raises(UserError, match=f"input_size must be divisible.*Try {nearest}"):
        hiera_video.hiera_base_16x224(input_size=size)


def test_other_impossible_sizes_are_refused():
    with pytest.raises(UserError, match="q_pool must be 0 to 3"):
        hiera_micro_8x64(q_pool=4)
    with pytest.raises(UserError, match="mask_unit_size must be divisible"):
        hiera_micro_8x64(mask_unit_size=(1, 4, 4))
    with pytest.raises(UserError, match="as many numbers"):
        hiera_micro_8x64(input_size=(64, 64))
    with pytest.raises(UserError, match="weight_init must be one of"):
        hiera_micro_8x64(weight_init="xaver")


def test_clips_of_another_size_are_refused_by_name():
    with pytest.raises(UserError, match=r"got \(1, 3, 8, 96, 96\)"):
        hiera_micro_8x64()(torch.zeros(1, 3, 8, 96, 96))


def test_mask_unit_attention_keeps_units_apart_until_stage_three():
    # Windows only: a change in one mask unit must not reach another one before global attention.
    model = hiera_micro_8x64(mask_unit_attn=(True, True, True, True)).eval()
    clips = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        tokens = model.embed(clips)
        changed = tokens.clone()
        changed[:, 3] += 1
        for before, after in zip(model.run_blocks(tokens), model.run_blocks(changed), strict=True):
            before, after = (t.unflatten(1, (model.num_units, -1)) for t in (before, after))
            differs = (before != after).flatten(2).any(-1)[0]
            assert differs.nonzero().flatten().tolist() == [3]


def test_global_attention_lags_one_block_into_stage_three():
    model = hiera_micro_8x64(stages=(1, 1, 3, 1))
    local = [(plan.stage, plan.local) for plan in model.plans]
    assert local == [(0, True), (1, True), (2, True), (2, False), (2, False), (3, False)]
    assert [plan.q_pool_size for plan in model.plans] == [1, 4, 4, 1, 1, 4]
    assert [plan.unit_tokens for plan in model.plans] == [64, 64, 16, 4, 4, 4]


def test_autoencoder_plan_does_not_pool_before_stage_four():
    plans = hiera_micro_8x64(stages=(1, 1, 3, 1), q_pool=2).plans
    assert [plan.q_pool_size for plan in plans] == [1, 4, 4, 1, 1, 1]
    assert plans[-1].dim_out == 8 * plans[0].dim


def test_attention_gives_the_kernel_4d_input(monkeypatch):
    seen = []

    def spy(query, key, value):
        seen.append(query.ndim)
        return original(query, key, value)

    original = F.scaled_dot_product_attention
    monkeypatch.setattr(layers.F, "scaled_dot_product_attention", spy)
    model = hiera_micro_8x64()
    model(torch.zeros(1, 3, 8, 64, 64))
    assert seen == [4] * len(model.blocks)


def test_attention_is_softmax_of_scaled_products():
    torch.manual_seed(0)
    attention = layers.MaskUnitAttention(6, 8, num_heads=2, q_pool_size=2).double()
    tokens = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    got = attention(tokens)
    for unit in range(3):
        query, key, value = attention.qkv(tokens[0, unit]).split(8, dim=-1)
        query = torch.stack([query[0:2].amax(0), query[2:4].amax(0)])
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            weights = (query[:, head] @ key[:, head].T / 2).softmax(-1)
            heads.append(weights @ value[:, head])
        expected = attention.proj(torch.cat(heads, -1))
        assert torch.allclose(got[0, unit], expected)


def test_layers_for_learning_rate_decay():
    model = hiera_micro_8x64(stages=(1, 1, 3, 1))
    assert model.num_layers == 8
    layer_of = {name: model.layer_index(name) for name, _ in model.named_parameters()}
    assert layer_of["pos_embed_spatial"] == layer_of["patch_embed.proj.weight"] == 0
    assert layer_of["blocks.0.norm1.weight"] == 1
    assert layer_of["blocks.5.proj.weight"] == 6
    assert layer_of["norm.weight"] == layer_of["head.projection.bias"] == 7


def test_drop_path_grows_linearly_with_depth():
    model = hiera_micro_8x64(stages=(1, 1, 3, 1), drop_path_rate=0.5)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
