"""The masked autoencoder: against golden figures, and against dense calculations written here."""

import pytest
import torch
import torch.nn.functional as F

from hiera_video.models import masking
from hiera_video.models.hiera_mae import FusionHead, MaskedAutoencoderHiera, mae_hiera_micro_8x64
from hiera_video.models.parts.token_order import unit_order
from hiera_video.models.parts.visible import draw_decoded, tokens_in_order
from hiera_video.utils.errors import UserError

VIDEO = {"input_size": (4, 64, 96)}  # units 2 x 2 x 3, decoder tokens 2 x 4 x 6
IMAGE = {
    "input_size": (64, 96),  # units 2 x 3, decoder tokens 4 x 6
    "q_stride": (2, 2),
    "mask_unit_size": (8, 8),
    "patch_kernel": (7, 7),
    "patch_stride": (4, 4),
    "patch_padding": (3, 3),
    "sep_pos_embed": False,
}
KINDS = pytest.mark.parametrize("settings", [VIDEO, IMAGE], ids=["video", "image"])


def make_mae(settings, **more):
    torch.manual_seed(0)
    small = {"embed_dim": 16, "decoder_embed_dim": 32, "decoder_depth": 2}
    return mae_hiera_micro_8x64(**settings, **(small | more))


def make_clips(model, *, num_clips=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_clips, 3, *model.input_size, generator=generator)


def draw(model, *, num_clips=2, ratio=0.6, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return masking.random(model.unit_grid, num_clips=num_clips, ratio=ratio, generator=generator)


def pixels_of(model, units_BU):
    """Return bool `[B, 1, T, H, W]` (or without T), True at the pixels of the True units."""
    steps = [size // units for size, units in zip(model.input_size, model.unit_grid, strict=True)]
    pixels = units_BU.unflatten(1, model.unit_grid)
    for dim, step in enumerate(steps, start=1):
        pixels = pixels.repeat_interleave(step, dim)
    return pixels[:, None]


@pytest.mark.parametrize("case", ["video_mae", "image_mae"])
def test_outputs_are_the_published_ones(case, golden_outputs, fill_by_formula, input_by_formula):
    golden = golden_outputs[case]
    model = fill_by_formula(MaskedAutoencoderHiera(**golden["constructor"]).eval())
    visible = torch.tensor(golden["visible_units"]).bool()
    with torch.no_grad():
        output = model(input_by_formula(golden["input_shape"]), visible)
    assert output.loss.item() == pytest.approx(golden["loss"], abs=1e-5)
    assert list(output.pred.shape) == list(output.target.shape) == golden["pred_shape"]
    assert output.pred.abs().mean().item() == pytest.approx(golden["pred_mean_abs"], abs=1e-5)
    for got, wanted in (
        (output.pred[0, :8], "pred_first"),
        (output.pred[-1, -8:], "pred_last"),
        (output.target[0, :8], "label_first"),
        (output.target[-1, -8:], "label_last"),
    ):
        if wanted in golden:
            assert torch.allclose(got, torch.tensor(golden[wanted]), atol=1e-5), wanted
    assert torch.equal(output.visible, visible)


@KINDS
@pytest.mark.parametrize("value", [7.5, float("nan"), float("inf")])
def test_no_pixel_of_a_hidden_unit_reaches_the_encoder(settings, value):
    model = make_mae(settings).eval()
    clips, visible = make_clips(model), draw(model)
    changed = torch.where(pixels_of(model, visible), clips, value)
    with torch.no_grad():
        assert torch.equal(model.encode(clips, visible), model.encode(changed, visible))


@KINDS
def test_neither_does_it_reach_the_prediction_but_the_target_is_its_own(settings):
    model = make_mae(settings).eval()
    clips, visible = make_clips(model), draw(model)
    changed = torch.where(pixels_of(model, visible), clips, make_clips(model, seed=5))
    with torch.no_grad():
        one, other = model(clips, visible), model(changed, visible)
    assert torch.equal(one.pred, other.pred)
    assert not torch.isclose(one.target, other.target).all(1).any()


@KINDS
def test_no_gradient_reaches_a_hidden_pixel_and_one_reaches_every_visible_pixel(settings):
    model = make_mae(settings)
    clips, visible = make_clips(model).requires_grad_(), draw(model)
    torch.manual_seed(3)
    latent = model.encode(clips, visible)
    (latent * torch.randn_like(latent)).sum().backward()
    seen = pixels_of(model, visible).expand_as(clips)
    assert (clips.grad[~seen] == 0).all()
    assert (clips.grad[seen] != 0).all()


@KINDS
def test_changing_one_visible_unit_changes_the_encoding_of_its_own_clip(settings):
    model = make_mae(settings).eval()
    clips, visible = make_clips(model), draw(model)
    with torch.no_grad():
        before = model.encode(clips, visible)
        for unit in visible[1].nonzero().flatten().tolist():
            one_unit = torch.zeros_like(visible)
            one_unit[1, unit] = True
            changed = torch.where(pixels_of(model, one_unit), clips + 1, clips)
            after = model.encode(changed, visible)
            assert torch.equal(after[0], before[0])
            assert not torch.equal(after[1], before[1])


@pytest.mark.parametrize(
    ("unit", "q_stride", "num_pools"),
    [
        ((1, 8, 8), (1, 2, 2), 1),
        ((1, 8, 8), (1, 2, 2), 2),
        ((8, 8), (2, 2), 1),
        ((8, 4), (2, 2), 2),
    ],
)
def test_fusion_is_a_strided_convolution_of_the_tokens_in_spatial_order(unit, q_stride, num_pools):
    torch.manual_seed(0)
    head = FusionHead(5, 7, q_stride=q_stride, num_pools=num_pools)
    assert head.weight.shape == (7, 5, *(q**num_pools for q in q_stride))
    map_BDX = torch.randn(3, 5, *unit)
    convolve = {2: F.conv2d, 3: F.conv3d}[len(unit)]
    expected = convolve(map_BDX, head.weight, head.bias, stride=head.weight.shape[2:])
    order = unit_order(unit, unit=unit, q_stride=q_stride, num_pools=num_pools)
    got = head(map_BDX.flatten(2).transpose(1, 2)[:, order])
    assert torch.allclose(got, expected.flatten(2).transpose(1, 2), atol=1e-5)


@KINDS
def test_the_encoder_fuses_the_stages_before_each_pooling_and_the_last_one(settings):
    # All units visible: then the encoder sees what the classifier's body sees.
    model = make_mae(settings).eval()
    clips = make_clips(model)
    convolve = {2: F.conv2d, 3: F.conv3d}[len(model.grid)]
    with torch.no_grad():
        maps = [m.movedim(-1, 1) for m in model.forward_features(clips)]
        fused = maps[3]  # and stage 3, maps[2], is left out
        for head, feature_map in zip(model.multi_scale_fusion_heads, maps, strict=False):
            fused = fused + convolve(
                feature_map, head.weight, head.bias, stride=head.weight.shape[2:]
            )
        expected = model.encoder_norm(fused.flatten(2).transpose(1, 2))
        latent = model.encode(clips, torch.ones(2, model.num_units, dtype=torch.bool))
    assert len(model.multi_scale_fusion_heads) == 2
    # From unit by unit to row-major.
    cells = [(g // u, u) for g, u in zip(model.decoder_grid, model.decoder_unit, strict=True)]
    dims = range(len(cells))
    latent = latent.reshape(2, *(c for c, _ in cells), *(u for _, u in cells), -1)
    order = [0, *(1 + d + len(cells) * half for d in dims for half in (0, 1)), 1 + 2 * len(cells)]
    assert torch.allclose(latent.permute(order).reshape(expected.shape), expected, atol=1e-5)


@KINDS
def test_the_decoder_is_that_of_all_tokens_in_row_major_order(settings):
    model = make_mae(settings).eval()
    clips, visible = make_clips(model), draw(model)
    with torch.no_grad():
        latent = model.decoder_embed(model.encode(clips, visible))
        # Dense, by hand: each token's unit, by its place in the decoder's grid.
        places = torch.cartesian_prod(*(torch.arange(g) for g in model.decoder_grid))
        unit_places = places // torch.tensor(model.decoder_unit)
        unit_of_token = torch.zeros(len(places), dtype=torch.long)
        for units, place in zip(model.unit_grid, unit_places.T, strict=True):
            unit_of_token = unit_of_token * units + place
        rows = []
        for clip in range(2):
            tokens = model.mask_token[0].repeat(len(places), 1)
            units = visible[clip].nonzero().flatten().tolist()
            for unit, chunk in zip(units, latent[clip].chunk(len(units)), strict=True):
                tokens[unit_of_token == unit] = chunk
            tokens = (tokens + model.decoder_pos_embed[0])[None, None]
            for block in model.decoder_blocks:
                tokens = block(tokens)
            pred = model.decoder_pred(model.decoder_norm(tokens[0, 0]))
            rows.append(pred[~visible[clip, unit_of_token]])
        assert torch.allclose(model(clips, visible).pred, torch.cat(rows), atol=1e-5)


@KINDS
def test_decoding_a_part_of_the_hidden_units(settings):
    model = make_mae(settings).eval()
    clips, visible = make_clips(model), draw(model)
    decoded = torch.zeros_like(visible)
    for clip in range(2):
        decoded[clip, (~visible[clip]).nonzero().flatten()[[-1, 0]]] = True
    with torch.no_grad():
        whole, part = model(clips, visible), model(clips, visible, decoded=decoded)
    per_unit = model.decoder_pos_embed.shape[1] // model.num_units
    assert part.pred.shape == part.target.shape == (2 * 2 * per_unit, 768)
    assert part.loss.item() == pytest.approx(F.mse_loss(part.pred, part.target).item(), rel=1e-6)
    # Rows of the full run that belong to the decoded units: their tokens, ascending.
    sizes = {"grid": model.decoder_grid, "unit": model.decoder_unit}
    asked, hidden = (tokens_in_order(units, **sizes) for units in (decoded, ~visible))
    rows = [torch.isin(hidden[clip], asked[clip]) for clip in range(2)]
    assert torch.equal(part.target, whole.target[torch.cat(rows)])
    # The others are not there for the decoder to attend to.
    assert not torch.allclose(part.pred, whole.pred[torch.cat(rows)], atol=1e-5)


@KINDS
def test_decoding_all_hidden_units_is_decoding_as_published(settings):
    model = make_mae(settings).eval()
    clips, visible = make_clips(model), draw(model)
    with torch.no_grad():
        one, other = model(clips, visible), model(clips, visible, decoded=~visible)
    assert torch.equal(one.pred, other.pred)
    assert torch.equal(one.loss, other.loss)


@KINDS
@pytest.mark.parametrize("part", [False, True])
def test_a_gradient_reaches_every_parameter(settings, part):
    model = make_mae(settings)
    clips, visible = make_clips(model), draw(model)
    decoded = draw_decoded(visible, keep_ratio=0.5 if part else 1.0)
    assert (decoded is not None) == part
    model(clips, visible, decoded=decoded).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_masks_are_drawn_where_none_are_given():
    model = make_mae({"input_size": (8, 64, 64)}).eval()
    clips = make_clips(model, num_clips=3)
    with torch.no_grad():
        torch.manual_seed(7)
        loss, pred, target, visible = model(clips, mask_ratio=0.75)
        assert visible.dtype == torch.bool
        assert visible.sum(1).tolist() == [4, 4, 4]
        assert pred.shape == target.shape == (3 * 12 * 4, 768)
        assert loss.item() == pytest.approx(F.mse_loss(pred, target).item(), rel=1e-6)
        torch.manual_seed(7)
        again = model(clips, mask_ratio=0.75)
        assert torch.equal(again.visible, visible)
        assert torch.equal(again.loss, loss)
        assert not torch.equal(model(clips, mask_ratio=0.75).visible, visible)
        assert model(clips).visible.sum(1).tolist() == [1, 1, 1]  # 0.9 of 16


def test_targets_are_the_normalised_first_frames_of_the_hidden_tokens():
    model = make_mae(VIDEO)
    clips, visible = make_clips(model), draw(model)
    target = model(clips, visible).target
    row = 0
    for clip in range(2):
        for time in range(2):
            for y in range(4):
                for x in range(6):
                    if visible[clip, (time * 2 + y // 2) * 3 + x // 2]:
                        continue
                    frame = clips[clip, :, 2 * time]
                    patch = frame[:, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
                    values = patch.permute(1, 2, 0).flatten()
                    expected = (values - values.mean()) / (values.var() + 1e-6).sqrt()
                    assert torch.allclose(target[row], expected, atol=1e-5)
                    row += 1
    assert row == len(target)


def test_in_bfloat16_the_loss_is_finite_and_the_target_float32():
    model = make_mae(VIDEO)
    clips, visible = make_clips(model), draw(model)
    exact = model(clips, visible)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(clips, visible)
    assert output.pred.dtype == torch.bfloat16
    assert output.target.dtype == output.loss.dtype == torch.float32
    assert torch.equal(output.target, exact.target)
    assert output.loss.item() == pytest.approx(exact.loss.item(), rel=0.02)
    output.loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_targets_of_half_precision_clips_are_normalised_in_float32():
    model = make_mae(VIDEO)
    clips, visible = make_clips(model).bfloat16(), draw(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(clips, visible)
    assert output.target.dtype == torch.float32
    assert torch.equal(output.target, model(clips.float(), visible).target)


def test_it_trains_after_it_was_used_in_inference_mode():
    # What is kept between calls must not be an inference tensor; sizes that no other test has.
    model = make_mae({"input_size": (2, 96, 128)})
    clips, visible = make_clips(model), draw(model)
    with torch.inference_mode():
        expected = model(clips, visible).loss.item()
    loss = model(clips, visible).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@KINDS
def test_it_runs_without_memory_on_the_meta_device(settings):
    model = make_mae(settings).to("meta")
    with torch.device("meta"):
        output = model(torch.empty(2, 3, *model.input_size), mask_ratio=0.5)
    assert output.pred.shape == (2 * model.decoder_pos_embed.shape[1] // 2, 768)


def test_poolings_in_time_and_others_than_two():
    settings = {"input_size": (16, 64, 64), "q_stride": (2, 2, 2), "mask_unit_size": (4, 8, 8)}
    model = make_mae(settings)
    assert model.decoder_grid == (2, 4, 4)
    clips, visible = make_clips(model), draw(model, ratio=0.5)
    output = model(clips, visible)
    # A token of the decoder stands for 8 frames: its target is the first of them.
    later = clips.clone()
    later[:, :, [f for f in range(16) if f % 8]] = 3.0
    assert torch.equal(model(later, visible).target, output.target)
    assert not torch.equal(model(clips.flip(2), visible).target, output.target)
    one_pool = make_mae(VIDEO, q_pool=1)
    assert one_pool.decoder_grid == (2, 8, 12)
    assert one_pool(make_clips(one_pool), draw(one_pool)).pred.shape[1] == 8 * 8 * 3


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(
        UserError, match=r"MASK.DECODER_EMBED_DIM must be divisible .*\(5\), got 32"
    ):
        make_mae(VIDEO, decoder_num_heads=5)
    with pytest.raises(UserError, match="square patches to predict, got 8 x 16 pixels"):
        make_mae({"input_size": (4, 64, 96), "patch_stride": (2, 2, 4)})
    with pytest.raises(UserError, match="input_size must be divisible"):
        make_mae({"input_size": (4, 65, 96)})


def test_clips_and_masks_that_do_not_fit_are_refused():
    model = make_mae(VIDEO)
    clips, visible = make_clips(model), draw(model)
    with pytest.raises(UserError, match="clips must have the shape"):
        model(clips[..., :64])
    with pytest.raises(UserError, match="visible must be bool of shape"):
        model(clips, visible.float())
    with pytest.raises(UserError, match="visible must be bool of shape"):
        model(clips, visible[:1])
    with pytest.raises(UserError, match="visible must hide at least one"):
        model(clips, torch.ones_like(visible))
    with pytest.raises(UserError, match="decoded must be bool"):
        model(clips, visible, decoded=visible)
    with pytest.raises(UserError, match="mask ratio must be"):
        model(clips, mask_ratio=1.0)


def test_layers_for_learning_rate_decay_and_the_body_without_a_decoder():
    model = make_mae(VIDEO)
    assert model.num_layers == 7
    layer_of = {name: model.layer_index(name) for name, _ in model.named_parameters()}
    assert layer_of["pos_embed_spatial"] == layer_of["patch_embed.proj.weight"] == 0
    assert layer_of["blocks.4.mlp.fc1.bias"] == 5
    for name in ("mask_token", "decoder_pos_embed", "decoder_blocks.0.norm1.weight"):
        assert layer_of[name] == 6
    assert [tuple(m.shape[1:4]) for m in model.forward_features(make_clips(model))] == [
        (2, 16, 24),
        (2, 8, 12),
        (2, 4, 6),
        (2, 4, 6),
    ]


def test_the_decoder_has_no_drop_path_and_the_encoder_has():
    model = make_mae(VIDEO, drop_path_rate=0.5)
    rates = [block.drop_path.drop_prob for block in model.blocks]
    assert rates == pytest.approx([0, 0.125, 0.25, 0.375, 0.5])
    assert all(block.drop_path.drop_prob == 0 for block in model.decoder_blocks)
