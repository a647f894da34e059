"""What the encoder of an autoencoder does with hidden mask units: sparse, dense or separate."""

import pytest
import torch
import torch.nn.functional as F

from hiera_video.config import load_config
from hiera_video.engine.launch import launch
from hiera_video.models import masking
from hiera_video.models.build import build_model
from hiera_video.models.hiera_mae import MaskedAutoencoderHiera, mae_hiera_micro_8x64
from hiera_video.models.parts.visible import draw_decoded, tokens_in_order
from hiera_video.utils.errors import UserError

DESIGNS = pytest.mark.parametrize("design", ["sparse", "dense", "separate"])


def make(design, **more):
    torch.manual_seed(0)
    small = {"embed_dim": 16, "decoder_embed_dim": 32, "decoder_depth": 2}
    return mae_hiera_micro_8x64(input_size=(4, 64, 96), mask_design=design, **small, **more).eval()


def clips_and_masks(model, *, num_clips=2):
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(num_clips, 3, *model.input_size, generator=generator)
    visible = masking.random(model.unit_grid, num_clips=num_clips, ratio=0.6, generator=generator)
    return clips, visible


def pixels_of(model, units_BU):
    pixels = units_BU.unflatten(1, model.unit_grid)
    for dim, units in enumerate(model.unit_grid, start=1):
        pixels = pixels.repeat_interleave(model.input_size[dim - 1] // units, dim)
    return pixels[:, None]


@DESIGNS
def test_hidden_pixels_reach_the_target_alone(design):
    model = make(design)
    clips, visible = clips_and_masks(model)
    changed = torch.where(pixels_of(model, visible), clips, float("nan"))
    with torch.no_grad():
        assert torch.equal(model(clips, visible).pred, model(changed, visible).pred)
    clips.requires_grad_()
    model.encode(clips, visible).square().sum().backward()
    seen = pixels_of(model, visible).expand_as(clips)
    assert (clips.grad[~seen] == 0).all()
    assert (clips.grad[seen] != 0).all()


@DESIGNS
def test_every_weight_learns(design):
    model = make(design).train()
    clips, visible = clips_and_masks(model)
    model(clips, visible).loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@DESIGNS
def test_predictions_do_not_depend_on_what_else_is_decoded_or_on_the_other_clip(design):
    model = make(design)
    clips, visible = clips_and_masks(model)
    decoded = draw_decoded(visible, keep_ratio=0.5, generator=torch.Generator().manual_seed(3))
    part, both, first = (
        model(clips, visible, decoded=decoded),
        model(clips, visible),
        model(clips[:1], visible[:1]),
    )
    assert torch.allclose(first.pred, both.pred[: len(first.pred)], atol=1e-5)
    places = {"grid": model.decoder_grid, "unit": model.decoder_unit}
    hidden, asked = tokens_in_order(~visible, **places), tokens_in_order(decoded, **places)
    assert len(part.pred) == asked.numel()
    chosen = torch.cat([torch.isin(h, a) for h, a in zip(hidden, asked, strict=True)])
    if design == "dense":  # the same tokens go through the decoder
        assert torch.allclose(part.pred, both.pred[chosen], atol=1e-5)
    assert torch.equal(part.target, both.target[chosen])


def test_dense_is_the_plain_encoder_with_a_mask_token_in_each_hidden_place():
    model = make("dense")
    clips, visible = clips_and_masks(model)
    tokens = model.patch_embed(torch.where(pixels_of(model, visible), clips, 0.0))
    grid = visible.unflatten(1, model.unit_grid)
    for dim, size in enumerate(model.mask_unit_size, start=1):
        grid = grid.repeat_interleave(size, dim)
    tokens = torch.where(grid.flatten(1)[..., None], tokens, model.mask_token_encoder)
    tokens = (tokens + model.position_embedding()).index_select(1, model.token_order)
    stages = model.run_blocks(tokens.unflatten(1, (model.num_units, -1)))
    fused = stages[-1] + sum(
        head(stage) for head, stage in zip(model.multi_scale_fusion_heads, stages, strict=False)
    )
    with torch.no_grad():
        assert torch.allclose(model.encode(clips, visible), model.encoder_norm(fused), atol=1e-5)


def test_separate_embeds_each_unit_as_a_clip_of_its_own_padded_with_zeros():
    model = make("separate")
    clips, visible = clips_and_masks(model)
    tokens = model.embed_visible(clips, visible, apart=True)
    projection = model.patch_embed.proj
    order = model.token_order.unflatten(0, (model.num_units, -1))
    for clip, kept, got in zip(clips, visible, tokens, strict=True):
        for unit, embedded in zip(kept.nonzero().flatten().tolist(), got, strict=True):
            t, y, x = (int(i) for i in torch.unravel_index(torch.tensor(unit), model.unit_grid))
            alone = clip[:, 2 * t : 2 * t + 2, 32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
            want = F.conv3d(
                alone[None], projection.weight, projection.bias, projection.stride, (1, 3, 3)
            )
            want = want[0].flatten(1).T[model.order_in_unit]
            want = want + model.position_embedding()[0, order[unit]]
            assert torch.allclose(embedded, want, atol=1e-5)


def test_separate_and_sparse_are_the_same_where_no_neighbour_is_visible():
    sparse, separate = make("sparse"), make("separate")
    separate.load_state_dict(sparse.state_dict())
    clips, visible = clips_and_masks(sparse)
    alone = torch.zeros_like(visible)
    alone[:, 4] = True
    with torch.no_grad():
        assert torch.allclose(sparse.encode(clips, alone), separate.encode(clips, alone), atol=1e-5)
        assert not torch.allclose(sparse.encode(clips, visible), separate.encode(clips, visible))


def test_an_image_has_the_same_designs():
    torch.manual_seed(0)
    for design in ("dense", "separate"):
        model = MaskedAutoencoderHiera(
            input_size=(64, 64), embed_dim=16, stages=(1, 1, 1, 1), decoder_embed_dim=32,
            decoder_depth=1, mask_design=design,
        )  # fmt: skip
        clips, visible = clips_and_masks(model)
        assert torch.isfinite(model(clips, visible).loss)


@DESIGNS
def test_a_design_pretrains_by_its_key(small_cfg, design):
    cfg = small_cfg(
        "TASK ssl TEST.ENABLE False MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64",
        "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 MASK.STRATEGY random MASK.RATIO 0.7",
        f"SOLVER.MAX_EPOCH 1 MASK.DESIGN {design}",
    )
    launch(cfg)
    assert build_model(cfg).mask_design == design


def test_a_model_remembers_its_design(tmp_path):
    model = make("dense")
    model.save_pretrained(tmp_path)
    again = MaskedAutoencoderHiera.from_pretrained(tmp_path)
    clips, visible = clips_and_masks(model)
    assert again.mask_design == "dense"
    assert torch.equal(model(clips, visible).loss, again(clips, visible).loss)


def test_another_design_is_refused():
    with pytest.raises(UserError, match="must be one of sparse, dense, separate, got 'holes'"):
        make("holes")
    with pytest.raises(UserError, match="MASK.DESIGN must be one of 'sparse', 'dense'"):
        load_config("configs/Demo/HIERA_MICRO_MAE_PT.yaml", ["MASK.DESIGN", "holes"])
