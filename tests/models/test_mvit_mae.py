"""Masked autoencoders from MViTv2 to Hiera, in the designs that the steps allow."""

import pytest
import torch

from hiera_video.checkpoints.matching import start_from_weights
from hiera_video.config import load_config
from hiera_video.engine.launch import launch
from hiera_video.models import masking
from hiera_video.models.build import build_model
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.models.mvit import STEPS, mvit_micro_8x64
from hiera_video.models.mvit_mae import mae_mvit_micro_8x64, mae_mvit_micro_64
from hiera_video.models.parts.pooling import Layout, Pool
from hiera_video.utils.errors import UserError

LADDER = [STEPS[:n] for n in range(len(STEPS) + 1)]
ALLOWED = [
    *((steps, "dense") for steps in LADDER),
    *((steps, "separate") for steps in LADDER if "a" in steps),
    *((steps, "sparse") for steps in LADDER if "d" in steps),
    ("bcd", "dense"),
]


def make(simplify, design, **more):
    torch.manual_seed(0)
    settings = {"input_size": (4, 64, 96), "embed_dim": 16, "decoder_embed_dim": 32} | more
    return mae_mvit_micro_8x64(simplify=simplify, mask_design=design, **settings).eval()


def clips_and_masks(model, num_clips=2):
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(num_clips, 3, *model.input_size, generator=generator)
    visible = masking.random(model.unit_grid, num_clips=num_clips, ratio=0.6, generator=generator)
    return clips, visible


def pixels_of(model, units_BU):
    pixels = units_BU.unflatten(1, model.unit_grid)
    for dim, units in enumerate(model.unit_grid, start=1):
        pixels = pixels.repeat_interleave(model.input_size[dim - 1] // units, dim)
    return pixels[:, None]


@pytest.mark.parametrize(("simplify", "design"), ALLOWED)
def test_hidden_pixels_have_no_effect_and_every_weight_learns(simplify, design):
    model = make(simplify, design)
    clips, visible = clips_and_masks(model)
    changed = torch.where(pixels_of(model, visible), clips, float("nan"))
    with torch.no_grad():
        assert torch.equal(model(clips, visible).pred, model(changed, visible).pred)
    model(clips, visible).loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("design", ["sparse", "separate", "dense"])
def test_the_end_is_the_autoencoder_of_hiera(design):
    ours = make(STEPS, design)
    small = {"input_size": (4, 64, 96), "embed_dim": 16, "decoder_embed_dim": 32}
    theirs = mae_hiera_micro_8x64(mask_design=design, **small).eval()
    theirs.load_state_dict(ours.state_dict())
    clips, visible = clips_and_masks(ours)
    with torch.no_grad():
        one, other = ours(clips, visible), theirs(clips, visible)
    assert torch.allclose(one.pred, other.pred, atol=1e-5)
    assert torch.allclose(one.loss, other.loss, atol=1e-6)


def test_a_separate_unit_is_padded_and_never_reads_its_neighbours():
    model = make("abc", "separate")
    pool = model.blocks[1].attn.pool_q
    assert pool.kernel == (3, 3, 3)
    tokens = torch.randn(1, 3 * 64, 32)
    layout = Layout(3, (1, 8, 8))
    pooled = pool(tokens, layout)
    for unit in range(3):
        alone = pool(tokens[:, 64 * unit : 64 * (unit + 1)], Layout(1, (1, 8, 8)))
        assert torch.equal(pooled[:, 16 * unit : 16 * (unit + 1)], alone)


def test_dropping_tokens_under_overlapping_kernels_breaks():
    """Design (b) of the paper's figure, which no key can choose."""
    torch.manual_seed(0)
    left, middle, right = torch.randn(3, 1, 1, 8, 8, 16)
    overlapping = Pool(kernel=(3, 3, 3), stride=(1, 2, 2))
    tiles = Pool(kernel=(1, 2, 2), stride=(1, 2, 2))

    def pooled(pool, units, of):
        """Pool units side by side as one grid; return the part that belongs to unit `of`."""
        grid = torch.cat(units, 3)
        found = pool(grid.flatten(1, 3), Layout(1, (1, *grid.shape[2:4])))
        return found.unflatten(1, (4, -1, 4))[:, :, of]

    # Left and right are visible. Dropping the middle one makes them neighbours: right then reads
    # tokens of left, and its value depends on which units happen to be visible.
    whole = pooled(overlapping, [left, middle, right], 2)
    dropped = pooled(overlapping, [left, right], 1)
    assert not torch.equal(whole, dropped)
    assert not torch.equal(dropped, pooled(overlapping, [left * 2, right], 1))
    # Leaving the middle in its place lets what is hidden leak into right, and so do zeros there.
    assert not torch.equal(whole, pooled(overlapping, [left, middle * 2, right], 2))
    assert not torch.equal(whole, pooled(overlapping, [left, torch.zeros_like(middle), right], 2))
    # Where kernels are strides, nothing of this happens: design (e).
    alone = pooled(tiles, [right], 0)
    assert torch.equal(alone, pooled(tiles, [left, middle, right], 2))
    assert torch.equal(alone, pooled(tiles, [left, right], 1))


@pytest.mark.parametrize("simplify", LADDER)
def test_a_classifier_starts_from_its_autoencoder(simplify):
    sizes = {"stages": (1, 1, 1, 2), "embed_dim": 16}
    autoencoder = make(simplify, "dense", **sizes)
    classifier = mvit_micro_8x64(simplify=simplify, input_size=(4, 64, 96), **sizes)
    content = {"model_state": autoencoder.state_dict()}
    summary = start_from_weights(classifier, "autoencoder.pt", key="KEY", content=content)
    body = {n for n in classifier.state_dict() if not n.startswith(("norm.", "head."))}
    assert set(summary.loaded) == body
    # The classifier pools before the last stage, where its grid is half as large in space.
    last = "blocks.4.attn.relative_positions.tables"
    assert summary.interpolated == (() if "a" in simplify else (f"{last}.1", f"{last}.2"))


@pytest.mark.parametrize(("simplify", "design"), [("", "dense"), ("abc", "separate")])
def test_a_step_pretrains_by_its_keys(small_cfg, simplify, design):
    cfg = small_cfg(
        "TASK ssl TEST.ENABLE False MODEL.ARCH mvit_mae MODEL.MODEL_NAME mae_mvit_micro_8x64",
        "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 MASK.STRATEGY random MASK.RATIO 0.7",
        f"SOLVER.MAX_EPOCH 1 MASK.DESIGN {design}",
        *([f"MODEL.SIMPLIFY {simplify}"] if simplify else []),
    )
    launch(cfg)
    model = build_model(cfg)
    assert (model.simplify, model.mask_design) == (simplify, design)


@pytest.mark.parametrize(
    "simplify",
    [
        pytest.param(steps, marks=() if steps in ("", STEPS) else pytest.mark.slow)
        for steps in LADDER
    ],
)
def test_a_step_learns_and_is_tested_by_its_key(small_cfg, simplify):
    cfg = small_cfg(
        "MODEL.ARCH mvit MODEL.MODEL_NAME mvit_micro_8x64 SOLVER.MAX_EPOCH 1",
        *([f"MODEL.SIMPLIFY {simplify}"] if simplify else []),
    )
    assert launch(cfg).num_evaluated == 8


def test_an_image_has_the_same_steps():
    model = mae_mvit_micro_64(simplify="ab", mask_design="separate")
    clips, visible = clips_and_masks(model)
    assert torch.isfinite(model(clips, visible).loss)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("MODEL.SIMPLIFY abc", "MASK.DESIGN must be dense or separate while kernels cross"),
        ("MASK.DESIGN separate", "MASK.DESIGN must be dense with relative positions"),
        ("MODEL.SIMPLIFY bcd", "MASK.DESIGN must be dense with relative positions"),
        ("MODEL.SIMPLIFY xa", "MODEL.SIMPLIFY must be some of the letters abcdef"),
    ],
)
def test_a_design_that_the_steps_do_not_allow_is_refused(words, message):
    keys = f"MODEL.ARCH mvit_mae MODEL.MODEL_NAME mae_mvit_micro_8x64 {words}".split()
    with pytest.raises(UserError, match=message):
        build_model(load_config("configs/Demo/HIERA_MICRO_MAE_PT.yaml", keys))


def test_steps_are_refused_by_other_families():
    with pytest.raises(UserError, match="must be a function that takes .*simplify"):
        build_model(load_config("configs/Demo/HIERA_MICRO.yaml", ["MODEL.SIMPLIFY", "a"]))
