"""From MViTv2 to Hiera: pinned to timm and torchvision at one end, to Hiera at the other."""

import itertools
import re
from math import prod

import pytest
import torch
from torch.nn import functional as F

from hiera_video.flops.count import count
from hiera_video.models.hiera import Hiera, hiera_base_16x224, hiera_micro_8x64
from hiera_video.models.mvit import (
    STEPS,
    mvit_base_16x224,
    mvit_base_224,
    mvit_micro_8x64,
    mvit_micro_64,
    mvit_small_16x224,
    mvit_small_224,
)
from hiera_video.models.parts.pooling import Layout, Pool
from hiera_video.models.parts.sizes import MICRO_IMAGE
from hiera_video.utils.compat import import_torchvision
from hiera_video.utils.errors import UserError

LADDER = [STEPS[:n] for n in range(len(STEPS) + 1)]


def randomise(model):
    """Give every weight a random value, also those that start as 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.05 + (1.0 if parameter.ndim == 1 and len(parameter) else 0.0))
    return model.eval()


def clips_for(model, num_clips=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_clips, 3, *model.input_size, generator=generator)


def from_timm(state, depths):
    """Rename timm's weights to ours."""
    starts = [0, *itertools.accumulate(depths)]
    renamed = {}
    for name, value in state.items():
        name = re.sub(
            r"stages\.(\d+)\.blocks\.(\d+)",
            lambda m: f"blocks.{starts[int(m[1])] + int(m[2])}",
            name,
        )
        name = name.replace("shortcut_proj_attn", "proj").replace("head.fc", "head.projection")
        name = re.sub(r"attn\.norm_([qkv])", r"attn.pool_\1.norm", name)
        name = name.replace("attn.rel_pos_h", "attn.relative_positions.tables.0")
        renamed[name.replace("attn.rel_pos_w", "attn.relative_positions.tables.1")] = value
    return renamed


def from_torchvision(state):
    """Rename torchvision's weights to ours."""
    renamed = {}
    for name, value in state.items():
        name = name.replace("conv_proj", "patch_embed.proj").replace("head.1", "head.projection")
        name = name.replace("attn.project.0", "attn.proj").replace(".project.", ".proj.")
        name = name.replace("mlp.0", "mlp.fc1").replace("mlp.3", "mlp.fc2")
        name = re.sub(r"(pool_[qkv])\.pool", r"\1", name).replace("norm_act.0", "norm")
        for dim, axis in enumerate("thw"):
            name = name.replace(f"rel_pos_{axis}", f"relative_positions.tables.{dim}")
        if name == "pos_encoding.class_token":
            name, value = "class_token", value[None, None]
        renamed[name] = value
    return renamed


def largest_difference(ours, theirs, clips):
    with torch.no_grad():
        got, wanted = ours(clips), theirs(clips)
    assert wanted.abs().max() > 0.05
    return (got - wanted).abs().max().item()


def test_the_start_is_timms_model_of_images():
    import_torchvision()  # timm imports it
    timm_models = pytest.importorskip("timm.models.mvitv2", reason="the peers extra is missing")
    depths = (1, 2, 2, 1)
    cfg = timm_models.MultiScaleVitCfg(depths=depths, embed_dim=32, num_heads=1)
    theirs = randomise(timm_models.MultiScaleVit(cfg, img_size=(64, 64), num_classes=7))
    ours = mvit_micro_64(stages=depths, num_classes=7).eval()
    ours.load_state_dict(from_timm(theirs.state_dict(), depths))
    assert largest_difference(ours, theirs, clips_for(ours)) < 1e-4


@pytest.mark.slow
def test_the_start_is_mvitv2_small_of_timm():
    import_torchvision()
    timm = pytest.importorskip("timm", reason="the peers extra is missing")
    theirs = randomise(timm.create_model("mvitv2_small", pretrained=False))
    ours = mvit_small_224().eval()
    ours.load_state_dict(from_timm(theirs.state_dict(), (1, 2, 11, 2)))
    assert largest_difference(ours, theirs, clips_for(ours)) < 1e-4


def torchvision_mvit(stages, dim, *, frames, side, num_classes):
    """Build torchvision's MViTv2 of these sizes as its `mvit_v2_s` is built."""
    import_torchvision()
    from torchvision.models.video import mvit

    blocks = []
    kv = 8
    for stage, depth in enumerate(stages):
        for position in range(depth):
            enters = stage > 0 and position == 0
            kv = kv // 2 if enters else kv
            blocks.append(
                mvit.MSBlockConfig(
                    num_heads=2**stage,
                    input_channels=dim * 2 ** (stage - enters),
                    output_channels=dim * 2**stage,
                    kernel_q=[3, 3, 3],
                    kernel_kv=[3, 3, 3],
                    stride_q=[1, 2, 2] if enters else [1, 1, 1],
                    stride_kv=[1, kv, kv],
                )
            )
    return mvit.MViT(
        spatial_size=(side, side),
        temporal_size=frames,
        block_setting=blocks,
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        num_classes=num_classes,
    )


def test_the_start_with_a_class_token_is_torchvisions_model_of_video():
    stages = (1, 2, 2, 1)
    theirs = randomise(torchvision_mvit(stages, 32, frames=8, side=64, num_classes=7))
    ours = mvit_micro_8x64(stages=stages, class_token=True, num_classes=7).eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))
    assert largest_difference(ours, theirs, clips_for(ours)) < 1e-4


@pytest.mark.slow
def test_the_start_is_mvit_v2_s_of_torchvision():
    import_torchvision()
    from torchvision.models.video import mvit_v2_s

    theirs = randomise(mvit_v2_s())
    ours = mvit_small_16x224(class_token=True, num_classes=400).eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))
    assert largest_difference(ours, theirs, clips_for(ours, 1)) < 1e-4


@pytest.mark.parametrize("kind", ["video", "image"])
def test_the_end_is_hiera(kind):
    if kind == "video":
        theirs, ours = hiera_micro_8x64(num_classes=7), mvit_micro_8x64(
            simplify=STEPS, num_classes=7
        )  # fmt: skip
    else:
        theirs = Hiera(**MICRO_IMAGE, num_classes=7)
        ours = mvit_micro_64(simplify=STEPS, num_classes=7)
    randomise(theirs)
    ours.eval().load_state_dict(theirs.state_dict())
    clips = clips_for(ours)
    assert largest_difference(ours, theirs, clips) < 1e-5
    for one, other in zip(
        ours.forward_features(clips), theirs.forward_features(clips), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_the_end_is_hiera_base():
    theirs = randomise(hiera_base_16x224(num_classes=400))
    ours = mvit_base_16x224(simplify=STEPS, num_classes=400).eval()
    ours.load_state_dict(theirs.state_dict())
    assert largest_difference(ours, theirs, clips_for(ours, 1)) < 1e-5


@pytest.mark.parametrize("simplify", ["bd", "bcde"])
def test_relative_positions_belong_to_the_whole_grid_where_pools_do_not_overlap(simplify):
    model = randomise(mvit_micro_8x64(simplify=simplify, input_size=(4, 64, 96), embed_dim=16))
    attention = model.blocks[0].attn
    with torch.no_grad():
        # All queries are ones, and keys of another column of mask units are out of their sight.
        # Keys have a stride of 8 tokens, so these are the distances below 16 and above 23.
        attention.qkv.weight[:16], attention.qkv.bias[:16] = 0.0, 1.0
        table = attention.relative_positions.tables[2]
        table[:16] = table[24:] = -1e4
    clips = clips_for(model, 1).requires_grad_()
    for column, left in ((3, 0), (12, 32), (20, 64)):
        feature = model.forward_features(clips)[0][0, 0, 5, column].sum()
        (grad,) = torch.autograd.grad(feature, clips)
        columns = grad[0].abs().amax((0, 1, 2))
        assert (columns[left + 3 : left + 29] > 0).all()
        # The kernels of the patch embedding reach 3 pixels into the neighbours.
        assert not columns[: max(left - 3, 0)].any()
        assert not columns[left + 32 :].any()


@pytest.mark.parametrize("simplify", [*LADDER, "c", "bd", "acde"])
def test_every_step_overfits_one_batch(simplify):
    torch.manual_seed(0)
    model = mvit_micro_8x64(
        simplify=simplify, input_size=(4, 64, 64), num_classes=4, weight_init="xavier"
    )
    clips, labels = clips_for(model, 4), torch.arange(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("simplify", LADDER)
def test_feature_maps_lie_in_space(simplify):
    model = randomise(mvit_micro_8x64(simplify=simplify, input_size=(4, 64, 64)))
    clips = clips_for(model, 1)
    maps = model.forward_features(clips)
    assert [tuple(m.shape) for m in maps] == [
        (1, 2, 16, 16, 32), (1, 2, 8, 8, 64), (1, 2, 4, 4, 128), (1, 2, 2, 2, 256)
    ]  # fmt: skip
    # A change in one corner of the clip changes the first stage's map there the most.
    changed = clips.clone()
    changed[..., :4, 60:] += 3
    difference = (model.forward_features(changed)[0] - maps[0])[0].abs().sum((0, -1))
    row, column = divmod(difference.argmax().item(), 16)
    assert row < 2
    assert column > 13
    assert torch.allclose(model.forward_head(maps), model(clips), atol=1e-5)


@pytest.mark.parametrize("stride", [(2, 2), (1, 2, 2)])
def test_a_maximum_keeps_the_precision_of_its_tokens(stride):
    shape = (1, 4, 4)[-len(stride) :]
    pool = Pool(kernel=[3] * len(stride), stride=stride)
    tokens = torch.randn(1, prod(shape), 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pool(tokens, Layout(1, shape))
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled.float(), pool(tokens.float(), Layout(1, shape)))


def test_activation_checkpointing_changes_no_gradient():
    model = mvit_micro_8x64(simplify="ab", input_size=(4, 64, 64), num_classes=4)
    clips = clips_for(model)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(clips).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"simplify": "xyz"}, "must be some of the letters abcdef, each once, got 'xyz'"),
        ({"simplify": "aa"}, "each once"),
        ({"simplify": "abcef"}, "must have a and d if it has f"),
        ({"simplify": "bcdef"}, "must have a and d if it has f"),
        ({"simplify": "abcdef", "class_token": True}, "class_token must be False with step f"),
        ({"input_size": (8, 60, 60)}, "input_size must be divisible"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        mvit_micro_8x64(**settings)


@pytest.mark.parametrize(
    ("make", "settings", "published"),
    [
        # MViTv2, arXiv 2112.01526: tables 1 and 6. With a class token, as there for video.
        (mvit_small_16x224, {"class_token": True}, 64.5),
        (mvit_small_224, {}, 7.0),
        (mvit_base_224, {}, 10.2),
        # Hiera, table 4
        (mvit_base_16x224, {"simplify": STEPS, "num_classes": 400}, 101.93),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_multiply_adds_are_the_published_ones(make, settings, published):
    with torch.device("meta"):
        model = make(**settings)
    cost = count(model, torch.empty(1, 3, *model.input_size, device="meta"))
    assert not cost.incomplete
    assert cost.multiply_adds / 1e9 == pytest.approx(published, rel=0.01)
