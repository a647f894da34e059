"""Plain vision transformers, against transformers' VideoMAE and timm's ViT."""

import pytest
import torch
import torch.nn.functional as F

from hiera_video.checkpoints.matching import load_weights, start_from_weights
from hiera_video.engine.launch import launch
from hiera_video.flops.count import count
from hiera_video.models import masking
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.parts.initialise import sincos_positions
from hiera_video.models.vit import (
    IMAGE,
    SIZES,
    ViT,
    vit_base_16x224,
    vit_base_224,
    vit_huge_16x224,
    vit_large_16x224,
    vit_micro_8x64,
    vit_small_16x224,
)
from hiera_video.models.vit_mae import mae_vit_base_16x224, mae_vit_base_224, mae_vit_micro_8x64
from hiera_video.solver.param_groups import build_param_groups
from hiera_video.utils.compat import import_torchvision
from hiera_video.utils.errors import UserError

SMALL = {"embed_dim": 48, "num_heads": 3, "stages": (2,)}


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.1 + (1.0 if parameter.ndim == 1 else 0.0))
    return model.eval()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def transformers_videomae(kind, **sizes):
    import_torchvision()
    transformers = pytest.importorskip("transformers", reason="the peers extra is missing")
    small = {
        "image_size": 64,
        "num_frames": 8,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 192,
        "num_labels": 7,
        "decoder_num_hidden_layers": 1,
        "decoder_hidden_size": 24,
        "decoder_intermediate_size": 96,
    }
    return randomise(getattr(transformers, kind)(transformers.VideoMAEConfig(**(sizes or small))))


def our_video(**settings):
    return vit_small_16x224(input_size=(8, 64, 64), num_classes=7, **{**SMALL, **settings}).eval()


def test_features_and_logits_are_those_of_transformers_videomae(tmp_path):
    theirs = transformers_videomae("VideoMAEForVideoClassification")
    torch.save(theirs.state_dict(), tmp_path / "theirs.bin")
    ours = our_video()
    summary = load_weights(ours, str(tmp_path / "theirs.bin"))
    assert "weights in the layout of transformers' VideoMAE were renamed" in str(summary)
    clips = noise(2, 3, 8, 64, 64)
    with torch.no_grad():
        wanted = theirs.videomae(clips.transpose(1, 2)).last_hidden_state
        (features,) = ours.forward_features(clips)
        logits, their_logits = ours(clips), theirs(clips.transpose(1, 2)).logits
    assert (features.flatten(1, 3) - wanted).abs().max() < 1e-4
    assert their_logits.abs().max() > 0.1
    assert (logits - their_logits).abs().max() < 1e-4


def test_visible_tokens_are_encoded_as_by_transformers_videomae(tmp_path):
    theirs = transformers_videomae("VideoMAEForPreTraining")
    torch.save(theirs.state_dict(), tmp_path / "theirs.bin")
    ours = mae_vit_micro_8x64(
        **SMALL, patch_kernel=(2, 16, 16), patch_stride=(2, 16, 16), decoder_embed_dim=24
    ).eval()
    classifier = our_video()
    summary = start_from_weights(classifier, str(tmp_path / "theirs.bin"))
    assert {name.split(".")[0] for name in summary.missing} == {"norm", "head"}
    body = {n: v for n, v in classifier.state_dict().items() if n in ours.state_dict()}
    ours.load_state_dict(body, strict=False)
    clips = noise(2, 3, 8, 64, 64)
    visible = masking.tube(ours.unit_grid, num_clips=2, ratio=0.75)
    with torch.no_grad():
        wanted = theirs.videomae(clips.transpose(1, 2), ~visible).last_hidden_state
        got = ours.run_blocks(ours.embed_visible(clips, visible))[-1]
    # transformers' encoder ends with a norm here, ours before it.
    norm = theirs.videomae.layernorm
    got = got if norm is None else norm(got)
    assert (got - wanted).abs().max() < 1e-4


def authors_layout(model):
    """Return our weights under the names of the authors' VideoMAE."""
    state = {}
    for name, value in model.state_dict().items():
        name = name.replace("head.projection", "head").replace("encoder_norm", "fc_norm")
        name = "fc_norm" + name.removeprefix("norm") if name.startswith("norm.") else name
        if name.endswith("qkv.bias"):
            query, key, values = value.chunk(3)
            key.zero_()  # their keys have no bias
            block = name.removesuffix("qkv.bias")
            state |= {f"{block}q_bias": query, f"{block}v_bias": values}
        else:
            state[name] = value
    return state


@pytest.mark.parametrize("wrapped", ["", "module."])
def test_weights_of_the_authors_videomae_load(tmp_path, wrapped):
    theirs = randomise(our_video())
    state = {f"{wrapped}{name}": value for name, value in authors_layout(theirs).items()}
    torch.save({"module" if wrapped else "model": state, "epoch": 3}, tmp_path / "theirs.pth")
    ours = our_video()
    summary = load_weights(ours, str(tmp_path / "theirs.pth"))
    assert "the authors' VideoMAE" in str(summary)
    clips = noise(1, 3, 8, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(clips), theirs(clips))


def test_pretrained_weights_of_the_authors_start_a_training(tmp_path):
    theirs = randomise(our_video())
    state = {
        f"encoder.{name.replace('fc_norm', 'norm')}": value
        for name, value in authors_layout(theirs).items()
        if not name.startswith("head")
    }
    state |= {"mask_token": torch.zeros(1, 1, 24), "encoder_to_decoder.weight": torch.ones(24, 48)}
    state |= {"decoder.blocks.0.attn.q_bias": torch.ones(24)}
    state |= {"decoder.blocks.0.attn.v_bias": torch.ones(24), "decoder.norm.weight": torch.ones(24)}
    torch.save({"model": state}, tmp_path / "pretrained.pth")
    ours = our_video()
    summary = start_from_weights(ours, str(tmp_path / "pretrained.pth"))
    assert {name.split(".")[0] for name in summary.missing} == {"norm", "head"}
    assert all(
        torch.equal(value, theirs.state_dict()[name])
        for name, value in ours.state_dict().items()
        if not name.startswith(("norm", "head"))
    )
    assert any("layout of the authors' VideoMAE" in note for note in summary.notes)


def timm_vit(**sizes):
    import_torchvision()
    timm = pytest.importorskip("timm", reason="the peers extra is missing")
    return randomise(timm.create_model("vit_base_patch16_224", pretrained=False, **sizes))


def test_outputs_are_those_of_timms_vit(tmp_path):
    theirs = timm_vit(embed_dim=48, depth=2, num_heads=3, img_size=64, num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = ViT(**{**IMAGE, "input_size": (64, 64), **SMALL}, num_classes=7).eval()
    summary = load_weights(ours, str(tmp_path / "theirs.pth"))
    assert "timm's and MAE's ViT" in str(summary)
    images = noise(2, 3, 64, 64)
    with torch.no_grad():
        assert theirs(images).abs().max() > 0.1
        assert (ours(images) - theirs(images)).abs().max() < 1e-4
    # At another resolution, positions are interpolated.
    larger = ViT(**{**IMAGE, "input_size": (96, 96), **SMALL}, num_classes=7)
    assert load_weights(larger, str(tmp_path / "theirs.pth")).interpolated == ("pos_embed",)


@pytest.mark.slow
def test_full_sizes_are_those_of_the_libraries(tmp_path):
    theirs = timm_vit()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = vit_base_224().eval()
    load_weights(ours, str(tmp_path / "theirs.pth"))
    images = noise(1, 3, 224, 224)
    with torch.no_grad():
        assert (ours(images) - theirs(images)).abs().max() < 1e-4
    theirs = transformers_videomae("VideoMAEModel", num_labels=400)
    torch.save(theirs.state_dict(), tmp_path / "theirs.bin")
    ours = vit_base_16x224().eval()
    start_from_weights(ours, str(tmp_path / "theirs.bin"))
    clips = noise(1, 3, 16, 224, 224)
    with torch.no_grad():
        wanted = theirs(clips.transpose(1, 2)).last_hidden_state
        (features,) = ours.forward_features(clips)
    assert (features.flatten(1, 3) - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_fixed_positions_of_images_are_those_of_mae():
    grid, dim = (3, 5), 16
    table = sincos_positions(grid, dim)
    frequencies = [1 / 10000 ** (i / (dim / 4)) for i in range(dim // 4)]
    row, column = 2, 4
    wanted = [
        *(torch.sin(torch.tensor([column * f for f in frequencies], dtype=torch.float64))),
        *(torch.cos(torch.tensor([column * f for f in frequencies], dtype=torch.float64))),
        *(torch.sin(torch.tensor([row * f for f in frequencies], dtype=torch.float64))),
        *(torch.cos(torch.tensor([row * f for f in frequencies], dtype=torch.float64))),
    ]
    assert torch.allclose(table[row * 5 + column].double(), torch.stack(wanted), atol=1e-6)
    with pytest.raises(UserError, match="embed_dim must be divisible by 4"):
        sincos_positions(grid, 18)


@pytest.mark.parametrize(
    ("make", "published"),
    [
        (vit_small_16x224, 57),
        (vit_base_16x224, 180),
        (vit_large_16x224, 597),
        (vit_huge_16x224, 1192),
        (vit_base_224, 17.6),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_multiply_adds_are_the_published_ones(make, published):
    with torch.device("meta"):
        model = make()
    cost = count(model, torch.empty(1, 3, *model.input_size, device="meta"))
    assert not cost.incomplete
    assert cost.multiply_adds / 1e9 == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("design", ["sparse", "dense", "separate"])
def test_an_autoencoder_sees_no_hidden_pixel_and_every_weight_learns(design, class_token):
    torch.manual_seed(0)
    model = mae_vit_micro_8x64(mask_design=design, class_token=class_token, **SMALL)
    clips = noise(2, 3, 8, 64, 64)
    visible = masking.tube(model.unit_grid, num_clips=2, ratio=0.75)
    pixels = visible.unflatten(1, model.unit_grid)
    for dim, step in ((1, 2), (2, 8), (3, 8)):
        pixels = pixels.repeat_interleave(step, dim)
    hidden = torch.where(pixels[:, None], clips, float("nan"))
    with torch.no_grad():
        assert torch.equal(model(clips, visible).pred, model(hidden, visible).pred)
    model(clips, visible).loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_vit_learns_one_batch_by_heart_and_pretraining_starts_it():
    torch.manual_seed(0)
    autoencoder = mae_vit_micro_8x64()
    model = vit_micro_8x64(num_classes=4, weight_init="xavier")
    body = {n: v for n, v in autoencoder.state_dict().items() if n in model.state_dict()}
    assert set(model.state_dict()) - set(body) == {
        *("norm.weight", "norm.bias", "head.projection.weight", "head.projection.bias")
    }
    clips, labels = noise(4, 3, 8, 64, 64), torch.arange(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_class_token_and_positions_belong_to_the_embedding_and_do_not_decay():
    model = ViT(**{**IMAGE, "input_size": (64, 64), **SMALL}, num_classes=7)
    assert model.layer_index("class_token") == model.layer_index("pos_embed") == 0
    groups = build_param_groups(
        model.named_parameters(),
        weight_decay=0.1,
        layer_decay=0.5,
        layer_index=model.layer_index,
        num_layers=model.num_layers,
    )
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decay["class_token"] == decay["pos_embed"] == 0
    assert decay["blocks.0.attn.qkv.weight"] == 0.1


def test_a_class_token_comes_first_and_feature_maps_lack_it():
    model = ViT(**{**IMAGE, "input_size": (64, 64), **SMALL}, num_classes=7).eval()
    images = noise(2, 3, 64, 64)
    assert model.run_blocks(model.embed(images))[-1].shape == (2, 17, 48)
    maps = model.forward_features(images)
    assert [tuple(m.shape) for m in maps] == [(2, 4, 4, 48)]
    with pytest.raises(UserError, match="forward_head must be given to a model without a class"):
        model.forward_head(maps)


@pytest.mark.parametrize(
    "words",
    [
        "MODEL.ARCH vit MODEL.MODEL_NAME vit_micro_8x64",
        "TASK ssl TEST.ENABLE False MODEL.ARCH vit_mae MODEL.MODEL_NAME mae_vit_micro_8x64 "
        "MASK.RATIO 0.7",
    ],
)
def test_a_vit_trains_by_its_keys(small_cfg, words):
    result = launch(small_cfg(f"{words} SOLVER.MAX_EPOCH 1"))
    assert result is None or result.num_evaluated == 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vit_micro_8x64(input_size=(8, 60, 60)), "input_size must be divisible by"),
        (lambda: hiera_micro_8x64(class_token=True), "class_token must be False where tokens"),
        (lambda: vit_micro_8x64(stages=(2, 2)), "stages one number for a plain ViT"),
        (
            lambda: vit_micro_8x64(pos_embed_type="rope"),
            "must be 'learned' or 'sincos', got 'rope'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_sizes_and_decoders():
    with torch.device("meta"):
        assert mae_vit_base_16x224().decoder_blocks[0].attn.proj.in_features == 384
        assert mae_vit_base_224().num_extra == 1
    assert SIZES["base"]["stages"] == (12,)
