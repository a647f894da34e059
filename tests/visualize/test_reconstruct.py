"""What is shown of a masked autoencoder, against pixels put together here by plain loops.

Shape suffixes: B clips (1), U mask units, N tokens, M hidden ones, P values of a patch; THWC
frames.
"""

import av
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from hiera_video.config import load_config, to_yaml
from hiera_video.models.hiera_mae import MAEOutput, MaskedAutoencoderHiera, mae_hiera_micro_8x64
from hiera_video.models.mvit_mae import MaskedAutoencoderMViT, mae_mvit_micro_64
from hiera_video.models.parts.autoencoder import MaskedAutoencoder
from hiera_video.models.parts.patches import normalised, pixel_patches
from hiera_video.utils.errors import UserError
from hiera_video.utils.outputs import make_folder
from hiera_video.visualize.pictures import (
    GREY,
    enlarged,
    grey_hidden,
    labelled_grid,
    save_mp4,
    save_png,
    side_by_side,
)
from hiera_video.visualize.reconstruct import (
    draw_mask,
    fill_in,
    load_autoencoder,
    read_clip,
    reconstruct,
    to_pixels,
)

MEAN, STD = (0.45, 0.4, 0.5), (0.225, 0.2, 0.25)
SETTINGS = {"mean": MEAN, "std": STD}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return mae_hiera_micro_8x64().eval()


@pytest.fixture
def cfg():
    overrides = (
        "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 TEST.ENABLE False "
        "MASK.RATIO 0.5 MASK.DECODER_EMBED_DIM 128 MASK.DECODER_DEPTH 2 MASK.DECODER_NUM_HEADS 4 "
        "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 DATA.NUM_FRAMES 8"
    )
    return load_config("configs/Demo/HIERA_MICRO.yaml", overrides.split())


def random_clip(seed=0):
    """Return uint8 frames and the clip a model takes."""
    frames_THWC = np.random.default_rng(seed).integers(256, size=(8, 64, 64, 3), dtype=np.uint8)
    clip = (torch.from_numpy(frames_THWC) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return frames_THWC, clip.permute(3, 0, 1, 2).contiguous()


def is_visible(visible_BU, step, y, x):
    """Say whether a pixel of the picture of a time step lies in a visible unit (4 x 2 x 2)."""
    return bool(visible_BU[0, step * 4 + y // 32 * 2 + x // 32])


class Perfect(MaskedAutoencoderHiera):
    """Predicts what it is to predict."""

    def forward(self, clips_BX, visible=None, mask_ratio=0.9, decoded=None):
        result = MaskedAutoencoder.forward(self, clips_BX, visible, mask_ratio, decoded)
        return MAEOutput(result.loss, result.target, result.target, result.visible)


class PerfectStep(MaskedAutoencoderMViT):
    """Predicts what it is to predict, of an image."""

    forward = Perfect.forward


@pytest.mark.parametrize("strategy", ["tube", "random", "frame"])
def test_a_perfect_predictor_gives_back_the_original_exactly(cfg, model, strategy):
    frames_THWC, clip_CTHW = random_clip()
    perfect = mae_hiera_micro_8x64().eval()
    perfect.__class__ = Perfect
    visible_BU = draw_mask(perfect, cfg, strategy=strategy, ratio=None, seed=3)
    pictures = reconstruct(perfect, clip_CTHW, visible_BU, **SETTINGS)
    np.testing.assert_array_equal(pictures.original, frames_THWC[::2])
    np.testing.assert_array_equal(pictures.reconstruction, frames_THWC[::2])
    # A model that is not perfect changes hidden pixels, and these alone.
    changed = (
        reconstruct(model, clip_CTHW, visible_BU, **SETTINGS).reconstruction != frames_THWC[::2]
    )
    for step, y, x in np.ndindex(4, 2, 2):
        unit = changed[step, 32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
        assert unit.any() != is_visible(visible_BU, step, 32 * y, 32 * x)


def test_an_image_is_one_picture():
    torch.manual_seed(0)
    image = mae_mvit_micro_64(simplify="abcdef").eval()
    perfect = mae_mvit_micro_64(simplify="abcdef").eval()
    perfect.__class__ = PerfectStep
    frames_THWC, clip_CTHW = random_clip()
    visible_BU = torch.tensor([[True, False, False, False]])
    pictures, exact = (
        reconstruct(model, clip_CTHW[:, :1], visible_BU, **SETTINGS) for model in (image, perfect)
    )
    np.testing.assert_array_equal(pictures.original, frames_THWC[:1])
    np.testing.assert_array_equal(exact.reconstruction, frames_THWC[:1])
    changed = pictures.reconstruction != frames_THWC[:1]
    for y, x in np.ndindex(2, 2):
        part = slice(32 * y, 32 * y + 32), slice(32 * x, 32 * x + 32)
        assert changed[0][part].any() == bool(y or x)
        assert (pictures.visible[0][part] == GREY).all() == bool(y or x)


def test_the_clip_of_an_image_is_the_middle_frame(cfg, videos):
    model = mae_mvit_micro_64(simplify="abcdef")
    clip = read_clip(videos["h264_b.mp4"], model, cfg)
    assert clip.clip_CTHW.shape == (3, 1, 64, 64)
    assert len(clip.seconds_T) == 1


def test_the_visible_row_shows_the_visible_units_and_grey(model):
    frames_THWC, clip_CTHW = random_clip(1)
    visible_BU = torch.zeros(1, 16, dtype=torch.bool)
    visible_BU[0, [0, 6, 9, 15]] = True
    shown = reconstruct(model, clip_CTHW, visible_BU, **SETTINGS).visible
    for step, y, x in np.ndindex(4, 64, 64):
        expected = frames_THWC[2 * step, y, x] if is_visible(visible_BU, step, y, x) else GREY
        assert tuple(shown[step, y, x]) == tuple(expected)


def test_hidden_pixels_lend_mean_and_contrast_and_nothing_else(model):
    """Turning the hidden patches upside down changes nothing of the picture there."""
    clip_CTHW = random_clip(2)[1]
    visible_BU = torch.arange(16)[None] < 4  # the first time step
    turned_CTHW = clip_CTHW.clone()
    blocks = turned_CTHW[:, 2:].unflatten(2, (4, 16)).unflatten(4, (4, 16))
    turned_CTHW[:, 2:] = blocks.flip(3, 5).flatten(4, 5).flatten(2, 3)
    plain, turned = (
        reconstruct(model, clip, visible_BU, **SETTINGS) for clip in (clip_CTHW, turned_CTHW)
    )
    assert (plain.original[1:] != turned.original[1:]).mean() > 0.9
    difference = plain.reconstruction.astype(int) - turned.reconstruction
    assert np.abs(difference).max() <= 1  # sums in another order


def test_patches_are_filled_in_where_they_belong():
    clip_CTHW = random_clip(4)[1]
    patches_NP = pixel_patches(clip_CTHW[None], side=16, frame_stride=2)[0]
    hidden_M = torch.tensor([3, 17, 63])
    filled_NP = fill_in(patches_NP, hidden_M, normalised(patches_NP[hidden_M]))
    torch.testing.assert_close(filled_NP, patches_NP, atol=1e-5, rtol=0)
    filled_NP = fill_in(patches_NP, hidden_M, torch.zeros(3, 768))
    kept_N = torch.ones(64, dtype=torch.bool)
    kept_N[hidden_M] = False
    assert torch.equal(filled_NP[kept_N], patches_NP[kept_N])
    expected_MP = patches_NP[hidden_M].mean(1, keepdim=True).expand(-1, 768)
    torch.testing.assert_close(filled_NP[hidden_M], expected_MP)


def test_pixels_are_the_nearest_and_never_wrap():
    clip_CTHW = torch.tensor([-0.3, 0.4999, 1.7]).view(1, 1, 1, 3)
    assert to_pixels(clip_CTHW, mean=(0.0,), std=(1.0,)).ravel().tolist() == [0, 127, 255]


def test_a_flat_clip_survives(model):
    clip_CTHW = torch.zeros(3, 8, 64, 64)
    pictures = reconstruct(model, clip_CTHW, torch.arange(16)[None] < 4, **SETTINGS)
    assert np.ptp(pictures.reconstruction.reshape(-1, 3).astype(int), 0).max() <= 2


def test_masks_come_from_the_seed_and_default_to_the_config(model, cfg):
    masks = [draw_mask(model, cfg, strategy=None, ratio=None, seed=seed) for seed in (0, 0, 1, 2)]
    assert masks[0].sum() == 8
    assert masks[0].unflatten(1, (4, 4)).float().std(1).max() == 0  # tubes
    assert torch.equal(masks[0], masks[1])
    assert not all(torch.equal(masks[0], mask) for mask in masks)
    assert draw_mask(model, cfg, strategy="random", ratio=0.9, seed=0).sum() == 1
    for wrong in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UserError, match=r"--ratio must be above 0 and below 1, got .* Try 0.9"):
            draw_mask(model, cfg, strategy=None, ratio=wrong, seed=0)
    with pytest.raises(UserError, match="--ratio must hide at least one mask unit, got 0.01"):
        draw_mask(model, cfg, strategy="tube", ratio=0.01, seed=0)
    with pytest.raises(UserError, match=r"--strategy .*'rando'\. Did you mean random\?"):
        draw_mask(model, cfg, strategy="rando", ratio=None, seed=0)


def test_the_clip_is_the_middle_one_or_begins_where_it_is_asked_to(
    model, cfg, make_video, index_frames, decode_index, tmp_path
):
    path = make_video(
        tmp_path / "a b.mkv", index_frames(40, height=64, width=64), codec="ffv1", pix_fmt="bgr0"
    )

    def numbers(start_sec):
        clip = read_clip(path, model, cfg, start_sec=start_sec)
        frames_THWC = to_pixels(clip.clip_CTHW, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
        shown = [decode_index(frame) for frame in frames_THWC]
        np.testing.assert_allclose(clip.seconds_T, np.array(shown) / 30)
        return shown

    assert cfg.DATA.SAMPLING_RATE == 2
    assert numbers(None) == list(range(13, 29, 2))  # 12 or 13 frames at both ends
    assert numbers(0.0) == list(range(0, 16, 2))
    assert numbers(0.5) == list(range(15, 31, 2))
    assert numbers(1.3) == list(range(25, 41, 2))  # moved, to end with the video
    for wrong in (-0.1, 1.34, float("nan")):
        with pytest.raises(UserError, match=r"a b.mkv: --start must be .* the video's 1.33 s, got"):
            read_clip(path, model, cfg, start_sec=wrong)


@pytest.mark.parametrize("name", ["one_frame.mp4", "odd_size.avi", "h264_turned.mp4"])
def test_any_video_will_do(model, cfg, videos, name):
    clip = read_clip(videos[name], model, cfg)
    assert clip.clip_CTHW.shape == (3, 8, 64, 64)
    visible_BU = draw_mask(model, cfg, strategy=None, ratio=None, seed=0)
    pictures = reconstruct(model, clip.clip_CTHW, visible_BU, **SETTINGS)
    assert pictures.reconstruction.shape == (4, 64, 64, 3)


def test_a_run_s_checkpoint_is_all_it_takes(model, cfg, tmp_path):
    path = str(tmp_path / "c.pyth")
    torch.save({"model_state": model.state_dict(), "cfg": to_yaml(cfg)}, path)
    loaded, found = load_autoencoder(path)
    assert found == cfg
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    loaded, found = load_autoencoder(path, model_name="mae_hiera_micro_8x64")
    assert found.MASK.STRATEGY == "random"
    assert torch.equal(loaded.mask_token, model.mask_token)

    torch.save(model.state_dict(), path)  # weights alone
    with pytest.raises(UserError, match="does not say of which model it is. Try giving --cfg"):
        load_autoencoder(path)
    assert torch.equal(load_autoencoder(path, cfg=cfg)[0].mask_token, model.mask_token)


def test_what_is_no_video_autoencoder_is_refused(cfg, tmp_path):
    classifier = load_config("configs/Demo/HIERA_MICRO.yaml")
    path = str(tmp_path / "c.pyth")
    torch.save({"model_state": {}, "cfg": to_yaml(classifier)}, path)
    with pytest.raises(UserError, match="--checkpoint must hold an autoencoder, got .* classify"):
        load_autoencoder(path)
    with pytest.raises(UserError, match="--cfg must be one of pretraining, TASK ssl"):
        load_autoencoder(path, cfg=classifier)
    with pytest.raises(UserError, match="of another model than the one configured"):
        load_autoencoder(path, cfg=cfg)
    with pytest.raises(UserError, match="--checkpoint must be a checkpoint of a pretraining run"):
        load_autoencoder(None)
    with pytest.raises(
        UserError, match="--model must be an autoencoder, got.*mae_hiera_base_16x224"
    ):
        load_autoencoder(None, model_name="hiera_base_16x224")
    with pytest.raises(UserError, match="--model must be a video autoencoder.*one for images"):
        load_autoencoder(None, model_name="mae_hiera_base_224")
    torch.save({"model_state": {}, "cfg": "MASK: {RATIOS: 1}"}, path)
    with pytest.raises(UserError, match="cannot be used any more .*RATIOS.* Try giving --cfg"):
        load_autoencoder(path)


def test_pictures_stand_in_the_grid_pixel_for_pixel(tmp_path):
    frames_THWC = enlarged(random_clip()[0][:3, :20, :20], at_least=50)
    assert frames_THWC.shape == (3, 60, 60, 3)
    rows = {"a": frames_THWC, "b\nc": 255 - frames_THWC}
    # A letter that no font has, and what matplotlib would take for a formula.
    picture_HWC = labelled_grid(
        rows, ["0", "1", "2"], title="$x_\U0001f40c.mp4$", caption="text " * 40
    )
    assert picture_HWC.shape[0] % 2 == picture_HWC.shape[1] % 2 == 0
    windows = np.lib.stride_tricks.sliding_window_view(picture_HWC, (60, 60, 3))[:, :, 0]
    for frames in rows.values():
        for frame_HWC in frames:
            corner = (picture_HWC[:-59, :-59] == frame_HWC[0, 0]).all(-1)
            assert any(np.array_equal(windows[y, x], frame_HWC) for y, x in np.argwhere(corner))
    path = str(tmp_path / "a b.png")
    save_png(path, picture_HWC)
    np.testing.assert_array_equal((imread(path)[..., :3] * 255).round(), picture_HWC)


def test_the_film_has_a_frame_for_each_time_step(tmp_path):
    frames_THWC = random_clip()[0].repeat(2, 1).repeat(2, 2)
    film_THWC = side_by_side({"left": frames_THWC, "right": 255 - frames_THWC})
    path = str(tmp_path / "film.mp4")
    save_mp4(path, film_THWC, fps=4)
    with av.open(path) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 4
    assert np.stack(decoded).shape == film_THWC.shape


def test_half_a_grey_lets_the_frame_through():
    frames_THWC = np.full((2, 4, 4, 3), 100, np.uint8)
    visible_THW = np.array([[[True, False], [False, True]]])
    grey = grey_hidden(frames_THWC, visible_THW, strength=0.5)[:, ::2, ::2, 0]
    assert grey.tolist() == [[[100, 135], [135, 100]]] * 2


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match="--output must be a folder that can be written, got .*file"
    ):
        make_folder(str(tmp_path / "file"), key="--output")
    make_folder(str(tmp_path / "new" / "folder"), key="--output")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    with pytest.raises(UserError, match="could not be written"):
        save_png(str(tmp_path / "no" / "picture.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="could not be written"):
        save_mp4(str(tmp_path / "no" / "film.mp4"), np.zeros((2, 16, 16, 3), np.uint8), fps=4)
