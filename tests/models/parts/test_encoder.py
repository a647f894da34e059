"""The body that classifier and autoencoder share: what it embeds, and its feature maps."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from hiera_video.models import masking
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.parts import layers

VIDEO = {"input_size": (4, 64, 96)}
IMAGE = {
    "input_size": (64, 96),
    "q_stride": (2, 2),
    "mask_unit_size": (8, 8),
    "patch_kernel": (7, 7),
    "patch_stride": (4, 4),
    "patch_padding": (3, 3),
    "sep_pos_embed": False,
}
KINDS = pytest.mark.parametrize("settings", [VIDEO, IMAGE], ids=["video", "image"])


def pixels_of(model, units_BU):
    """Return bool `[B, 1, T, H, W]` (or without T), True at the pixels of the True units."""
    steps = [size // units for size, units in zip(model.input_size, model.unit_grid, strict=True)]
    pixels = units_BU.unflatten(1, model.unit_grid)
    for dim, step in enumerate(steps, start=1):
        pixels = pixels.repeat_interleave(step, dim)
    return pixels[:, None]


@KINDS
def test_tokens_of_visible_units_are_those_of_a_dense_convolution(settings):
    torch.manual_seed(0)
    model = hiera_micro_8x64(**settings).eval()
    clips = torch.randn(2, 3, *model.input_size)
    visible = masking.random(model.unit_grid, num_clips=2, ratio=0.6)
    with torch.no_grad():
        dense = model.embed(clips * pixels_of(model, visible))
        got = model.embed_visible(clips, visible)
    for clip in range(2):
        assert torch.allclose(got[clip], dense[clip, visible[clip]], atol=1e-5)


@KINDS
def test_patches_are_embedded_for_visible_units_alone(settings):
    model = hiera_micro_8x64(**settings)
    clips = torch.randn(2, 3, *model.input_size)
    operations = []
    for num_visible in (0, 1, 2, 4):
        visible = torch.zeros(2, model.num_units, dtype=torch.bool)
        visible[:, :num_visible] = True
        with FlopCounterMode(display=False) as counter:
            if num_visible:
                model.embed_visible(clips, visible)
            else:
                model.embed(clips)
        operations.append(counter.get_total_flops())
    dense, *sparse = operations
    assert dense > 0
    assert sparse == [dense * n // model.num_units for n in (1, 2, 4)]


@KINDS
@pytest.mark.parametrize("q_pool", [2, 3])
def test_forward_features_are_the_intermediates(settings, q_pool):
    torch.manual_seed(0)
    model = hiera_micro_8x64(**settings, q_pool=q_pool).eval()
    clips = torch.randn(2, 3, *settings["input_size"])
    with torch.no_grad():
        _, maps = model(clips, return_intermediates=True)
        features = model.forward_features(clips)
    assert len(maps) == len(features) == 4
    for stage, (one, other) in enumerate(zip(maps, features, strict=True)):
        assert torch.equal(one, other)
        side = 2 ** min(stage, q_pool)
        assert one.shape[-3:] == (16 // side, 24 // side, 32 * 2**stage)


@KINDS
def test_feature_maps_are_in_spatial_order(settings):
    model = hiera_micro_8x64(**settings)
    values = torch.randn(model.grid)
    # Pooled as the blocks pool them: neighbours in unit order.
    outputs = [values.flatten()[model.token_order][None, :, None]]
    expected = [values[None, None]]
    pool = {2: F.max_pool2d, 3: F.max_pool3d}[values.ndim]
    for _ in range(3):
        outputs.append(layers.max_pool(outputs[-1][:, None], 4)[:, 0])
        expected.append(pool(expected[-1], model.q_stride))
    for got, wanted in zip(model.feature_maps(outputs), expected, strict=True):
        assert torch.equal(got[0, ..., 0], wanted[0, 0])
