import numpy as np
import pytest
import torch
from torch import nn

from hiera_video.checkpoints.positions import resize_positions
from hiera_video.models.hiera import Hiera, hiera_micro_8x64
from hiera_video.models.mvit import mvit_micro_8x64

SPATIAL, TEMPORAL, WHOLE = "pos_embed_spatial", "pos_embed_temporal", "pos_embed"
VIDEO = {
    "q_stride": (1, 2, 2),
    "mask_unit_size": (1, 8, 8),
    "patch_kernel": (3, 7, 7),
    "patch_stride": (2, 4, 4),
    "patch_padding": (1, 3, 3),
}
SMALL = {"embed_dim": 4, "stages": (1, 1, 1, 1), "num_classes": 2}


def image_model(*size):
    return Hiera(input_size=size, **SMALL)


def video_model(*size, separate=True):
    return Hiera(input_size=size, sep_pos_embed=separate, **VIDEO, **SMALL)


class WithDecoder(nn.Module):
    """The shapes of an autoencoder: a body's, and a decoder's on a grid of its own."""

    def __init__(self, body, *, dim=3):
        super().__init__()
        self.grid = body.grid
        self.decoder_grid = tuple(g // q**2 for g, q in zip(body.grid, body.q_stride, strict=True))
        for name, value in body.named_parameters():
            if name.startswith("pos_embed"):
                self.register_parameter(name, nn.Parameter(value.detach()))
        self.decoder_pos_embed = nn.Parameter(torch.randn(1, int(np.prod(self.decoder_grid)), dim))


def cubic_weights(there, here):
    """[here, there]: the matrix of a bicubic resize along one axis, from its definition."""
    a = -0.75
    weights = np.zeros((here, there))
    for i in range(here):
        place = (i + 0.5) * there / here - 0.5
        for j in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - j)
            weight = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d - 1) * (d - 2) ** 2
            weights[i, min(max(j, 0), there - 1)] += weight
    return weights


def linear_weights(there, here):
    places = (np.arange(here) + 0.5) * there / here - 0.5
    return np.stack([np.interp(places, np.arange(there), row) for row in np.eye(there)], 1)


def resize_by_hand(positions, there, here):
    grid = positions.double().numpy().reshape(*there, -1)
    per_axis = zip("thw", (linear_weights, cubic_weights, cubic_weights), strict=True)
    matrices = [
        make(t, h) if t != h else np.eye(t)
        for (_, make), t, h in zip(per_axis, there, here, strict=True)
    ]
    return torch.tensor(np.einsum("at,bh,cw,thwd->abcd", *matrices, grid)).flatten(0, 2)[None]


def assert_resized(old, new, there, here):
    assert torch.allclose(new.double(), resize_by_hand(old, there, here), atol=1e-6)


def test_twice_the_resolution_and_frames_by_an_independent_calculation():
    state, model = video_model(8, 64, 64).state_dict(), video_model(16, 128, 128)
    resized, names = resize_positions(state, model)
    assert names == (SPATIAL, TEMPORAL)
    assert_resized(state[SPATIAL], resized[SPATIAL], (1, 16, 16), (1, 32, 32))
    assert_resized(state[TEMPORAL], resized[TEMPORAL], (4, 1, 1), (8, 1, 1))
    untouched = [name for name in state if name not in names]
    assert all(resized[name] is state[name] for name in untouched)
    model.load_state_dict(resized)
    assert model(torch.randn(1, 3, 16, 128, 128)).isfinite().all()


def test_relative_positions_by_an_independent_calculation():
    sizes = {"embed_dim": 8, "stages": (1, 1, 1, 1), "num_classes": 2}
    small = mvit_micro_8x64(**sizes)
    large = mvit_micro_8x64(input_size=(16, 64, 128), **sizes)
    for here, there in ((large, small), (small, large)):
        state, own = there.state_dict(), here.state_dict()
        resized, names = resize_positions(state, here)
        differing = {name for name in own if own[name].shape != state[name].shape}
        assert set(names) == differing
        # Time and width of 4 stages, and the height of none.
        assert {name[-1] for name in names} == {"0", "2"}
        assert len(names) == 8
        for name in names:
            weights = linear_weights(len(state[name]), len(own[name]))
            wanted = torch.tensor(weights @ state[name].double().numpy())
            assert torch.allclose(resized[name].double(), wanted, atol=1e-6)
        here.load_state_dict(resized)


def test_relative_positions_that_cannot_be_resized_are_left_to_the_caller():
    model = mvit_micro_8x64(embed_dim=8, stages=(1, 1, 1, 1), num_classes=2)
    name = "blocks.0.attn.relative_positions.tables.1"
    for shape in ((7, 9), (0, 8), (8,), (3, 7, 8)):
        resized, names = resize_positions({name: torch.zeros(shape)}, model)
        assert names == ()
        assert resized[name].shape == shape


def test_smaller_ones_too_and_of_another_aspect_ratio():
    state, model = video_model(12, 64, 128).state_dict(), video_model(4, 32, 64)
    resized, _ = resize_positions(state, model)
    assert_resized(state[SPATIAL], resized[SPATIAL], (1, 16, 32), (1, 8, 16))
    assert_resized(state[TEMPORAL], resized[TEMPORAL], (6, 1, 1), (2, 1, 1))


def test_a_square_file_serves_a_model_of_another_aspect_ratio():
    state, model = video_model(8, 96, 96).state_dict(), video_model(16, 64, 160)
    resized, names = resize_positions(state, model)
    assert names == (SPATIAL, TEMPORAL)
    assert_resized(state[SPATIAL], resized[SPATIAL], (1, 24, 24), (1, 16, 40))
    image, model = image_model(64, 64).state_dict(), image_model(96, 32)
    assert_resized(image[WHOLE], resize_positions(image, model)[0][WHOLE], (1, 16, 16), (1, 24, 8))
    # A file that can have the model's own aspect ratio has it: 16 x 64 places, not 32 x 32.
    long, model = image_model(64, 256).state_dict(), image_model(32, 128)
    assert_resized(long[WHOLE], resize_positions(long, model)[0][WHOLE], (1, 16, 64), (1, 8, 32))


def test_images_have_space_alone():
    state, model = image_model(64, 64).state_dict(), image_model(96, 96)
    resized, names = resize_positions(state, model)
    assert names == (WHOLE,)
    assert_resized(state[WHOLE], resized[WHOLE], (1, 16, 16), (1, 24, 24))


@pytest.mark.parametrize(
    ("size", "other"),
    [
        ((8, 64, 64), (16, 64, 64)),  # frames alone
        ((8, 64, 64), (4, 64, 64)),
        ((8, 64, 64), (24, 64, 64)),
        ((8, 64, 64), (8, 128, 128)),  # space alone: also four times the frames by number
        ((8, 96, 96), (8, 64, 64)),
        ((8, 64, 64), (16, 128, 128)),  # both
    ],
)
def test_frames_and_space_in_one_embedding(size, other):
    model = video_model(*other, separate=False)
    state = video_model(*size, separate=False).state_dict()
    resized, names = resize_positions(state, model)
    there = (size[0] // 2, size[1] // 4, size[2] // 4)
    assert names == (WHOLE,)
    assert_resized(state[WHOLE], resized[WHOLE], there, model.grid)


def test_equal_sizes_come_back_as_they_are():
    for model in (image_model(64, 64), video_model(8, 64, 64), video_model(8, 64, 64, separate=0)):
        state = model.state_dict()
        resized, names = resize_positions(state, model)
        assert names == ()
        assert all(resized[name] is value for name, value in state.items())
        assert list(resized) == list(state)


def test_a_constant_stays_constant_and_the_type_is_kept():
    state = video_model(8, 64, 64).state_dict()
    state |= {name: torch.full_like(state[name], 0.37) for name in (SPATIAL, TEMPORAL)}
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        typed = {name: value.to(dtype) for name, value in state.items()}
        resized, names = resize_positions(typed, video_model(12, 96, 96))
        for name in names:
            assert resized[name].dtype is dtype
            constant = torch.full_like(resized[name], typed[name][0, 0, 0].item())
            assert torch.allclose(resized[name], constant, rtol=0, atol=1e-12)


def test_of_the_model_only_shapes_are_used():
    state = video_model(8, 64, 64).state_dict()
    with torch.device("meta"):
        shapes = video_model(16, 96, 96)
    resized, names = resize_positions(state, shapes)
    real, _ = resize_positions(state, video_model(16, 96, 96))
    assert names == (SPATIAL, TEMPORAL)
    assert all(torch.equal(resized[name], real[name]) for name in state)


def test_what_is_no_grid_or_has_other_channels_is_left():
    model = video_model(16, 96, 96)
    state = video_model(8, 64, 128).state_dict()  # 16 x 32 places are no square
    resized, names = resize_positions(state, model)
    assert names == (TEMPORAL,)
    assert resized[SPATIAL] is state[SPATIAL]
    wider = {SPATIAL: torch.ones(1, 256, 5), TEMPORAL: torch.ones(4, 4)}
    empty = {SPATIAL: torch.ones(1, 0, 4), TEMPORAL: torch.ones(1, 0, 4)}
    stacked = {WHOLE: torch.ones(1, 3 * 256, 4)}  # three frames for a model of images
    assert resize_positions(stacked, image_model(64, 64)) == (stacked, ())
    for odd in (wider, empty, {SPATIAL: torch.ones(())}, {}):
        assert resize_positions(odd, model) == (odd, ())


def test_a_model_that_names_no_grid_is_left_alone():
    state = {WHOLE: torch.ones(1, 4, 2)}
    assert resize_positions(state, nn.Linear(2, 2)) == (state, ())


@pytest.mark.parametrize("other", [(16, 64, 64), (8, 128, 128), (16, 128, 128), (4, 128, 128)])
def test_the_decoder_has_as_many_frames_as_the_body(other):
    # (4, 128, 128) has twice the decoder's positions of (8, 64, 64): two changes at once.
    theirs, model = WithDecoder(video_model(8, 64, 64)), WithDecoder(video_model(*other))
    state = theirs.state_dict()
    resized, _ = resize_positions(state, model)
    there, here = theirs.decoder_grid, model.decoder_grid
    assert_resized(state["decoder_pos_embed"], resized["decoder_pos_embed"], there, here)


def test_decoders_of_equal_numbers_on_other_grids_are_interpolated():
    theirs, model = WithDecoder(video_model(16, 32, 32)), WithDecoder(video_model(4, 64, 64))
    old = theirs.state_dict()
    new, _ = resize_positions(old, model)
    assert old["decoder_pos_embed"].shape == new["decoder_pos_embed"].shape
    assert_resized(old["decoder_pos_embed"], new["decoder_pos_embed"], (8, 2, 2), (2, 4, 4))


def test_decoders_of_images_and_of_one_embedding():
    state = WithDecoder(image_model(64, 64)).state_dict()
    resized, names = resize_positions(state, WithDecoder(image_model(96, 96)))
    assert names == (WHOLE, "decoder_pos_embed")
    there, here = (1, 4, 4), (1, 6, 6)
    assert_resized(state["decoder_pos_embed"], resized["decoder_pos_embed"], there, here)
    state = WithDecoder(video_model(8, 64, 64, separate=False)).state_dict()
    resized, _ = resize_positions(state, WithDecoder(video_model(8, 96, 96, separate=False)))
    there, here = (4, 4, 4), (4, 6, 6)
    assert_resized(state["decoder_pos_embed"], resized["decoder_pos_embed"], there, here)


def test_one_token_in_time_is_a_video_still():
    state = hiera_micro_8x64().state_dict()
    resized, names = resize_positions(state, hiera_micro_8x64(input_size=(2, 64, 64)))
    assert names == (TEMPORAL,)
    assert torch.allclose(resized[TEMPORAL][0, 0], state[TEMPORAL][0, 1:3].mean(0), atol=1e-7)
