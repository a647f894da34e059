import subprocess
import sys
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import hiera_video
from hiera_video import Prediction, Predictor
from hiera_video.data.dataset import Failure
from hiera_video.data.decoders import DecodeError, Decoding, open_video
from hiera_video.engine.launch import launch
from hiera_video.export.model import Export, export_model
from hiera_video.inference.load import load_trained
from hiera_video.inference.windows import file_windows, make_grid
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.utils.errors import UserError

CLASSES = ["clockwise", "counter-clockwise", "down", "grows", "left", "right", "shrinks", "up"]
SSL = (
    "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 TEST.ENABLE False "
    "TEST.VIEWS_TABLE False"
)


@pytest.fixture
def test_videos(tiny_set):
    lines = (Path(tiny_set) / "test.csv").read_text().splitlines()
    return [str(Path(tiny_set) / line.split()[0]) for line in lines]


@pytest.fixture
def checkpoint(small_cfg, tmp_path):
    """Save an untrained classifier as a run does."""

    def save(*overrides, **more):
        cfg = small_cfg(*overrides)
        torch.manual_seed(0)
        model = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8)
        content = {
            "model_state": model.state_dict(),
            "cfg": hiera_video.config.to_yaml(cfg),
            "class_names": CLASSES,
        }
        path = tmp_path / "checkpoint_epoch_00001.pyth"
        torch.save(content | more, path)
        return str(path)

    return save


def test_it_gives_the_scores_of_the_multi_view_test(checkpoint, small_cfg, test_videos):
    path = checkpoint(class_names=None)  # those of the videos are others
    result = launch(small_cfg("TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH", path))
    path = checkpoint()
    found = Predictor(path)(test_videos)
    assert [one.path for one in found] == test_videos
    assert np.allclose(np.stack([one.scores for one in found]), result.scores_NK, atol=1e-6)
    assert len(np.unique(result.scores_NK, axis=0)) > 1
    alone = Predictor(path)(Path(test_videos[-1]))
    assert np.allclose(alone.scores, found[-1].scores, atol=1e-6)
    assert alone.name == CLASSES[found[-1].label]


def test_the_rule_for_precision_is_that_of_the_test_on_a_cpu_too(
    checkpoint, small_cfg, test_videos
):
    mixed = "TRAIN.MIXED_PRECISION True"
    path = checkpoint(class_names=None)
    keys = f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {path}"
    plain, result = (launch(small_cfg(words)) for words in (keys, f"{keys} {mixed}"))
    found = Predictor(checkpoint(mixed), device="cpu")(test_videos)
    scores_NK = np.stack([one.scores for one in found])
    assert np.allclose(scores_NK, result.scores_NK, atol=1e-6)
    assert not np.allclose(scores_NK, plain.scores_NK, atol=1e-6)


def test_frames_in_memory_are_the_video(checkpoint, videos):
    predictor = Predictor(checkpoint())
    path = videos["lossless.mkv"]
    with open_video(path) as reader:
        frames_THWC, fps = reader.frames_at(np.arange(reader.num_frames)), reader.fps
    of_path, of_frames = predictor(path), predictor(frames_THWC, fps=fps)
    assert np.allclose(of_path.scores, of_frames.scores, atol=1e-6)
    assert (of_path.path, of_frames.path) == (path, "")
    tensor = predictor(torch.from_numpy(frames_THWC), fps=fps)
    assert np.allclose(tensor.scores, of_frames.scores)
    # Another rate takes other frames.
    assert not np.allclose(predictor(frames_THWC, fps=2 * fps).scores, of_frames.scores)


def test_the_top_classes_are_typed_and_sorted():
    scores = np.array([0.2, 0.5, 0.2, 0.1], dtype=np.float32)
    found = Prediction("a.mp4", scores, ("a", "b", "c", "d"))
    assert [(one.label, one.name) for one in found.top(3)] == [(1, "b"), (0, "a"), (2, "c")]
    assert len(found.top(9)) == 4
    assert (found.label, found.name, found.score) == (1, "b", 0.5)


def test_a_bad_video_is_named_in_its_place(checkpoint, test_videos, bad_videos):
    predictor = Predictor(checkpoint(), num_clips=1, num_crops=1)
    paths = [test_videos[0], bad_videos["noise.mp4"], test_videos[1], bad_videos["missing.mp4"]]
    found = list(predictor.each(paths))
    assert [type(one) for one in found] == [Prediction, Failure, Prediction, Failure]
    assert [one.path for one in found] == paths
    with pytest.raises(DecodeError, match="missing.mp4: no such file"):
        predictor(bad_videos["missing.mp4"])
    with pytest.raises(DecodeError, match="noise.mp4"):
        predictor(paths)
    assert predictor([]) == []


def test_processes_give_the_same(checkpoint, test_videos):
    one, two = (Predictor(checkpoint(), num_workers=workers)(test_videos[:3]) for workers in (0, 1))
    assert all(np.array_equal(a.scores, b.scores) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((4, 8, 8, 3)), 30, "uint8 .*got float64"),
        (np.zeros((4, 3, 8, 8), np.uint8), 30, r"got uint8 \[4, 3, 8, 8\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), 30, "frames must be"),
        (np.zeros((4, 8, 8, 3), np.uint8), None, "fps must be above 0"),
        (np.zeros((4, 8, 8, 3), np.uint8), 0, "fps must be above 0"),
    ],
)
def test_frames_of_another_kind_are_refused(checkpoint, frames, fps, message):
    with pytest.raises(UserError, match=message):
        Predictor(checkpoint())(frames, fps=fps)


def test_classes_without_names_are_numbered_or_named_by_hand(checkpoint, tmp_path):
    path = checkpoint(class_names=None)
    predictor = Predictor(path)
    assert not predictor.is_named
    assert predictor.class_names[3] == "class 3"
    names = tmp_path / "names.txt"
    names.write_text("# mine\n" + "\n".join("abcdefgh") + "\n")
    for given in (str(names), list("abcdefgh")):
        predictor = Predictor(path, class_names=given)
        assert predictor.is_named
        assert predictor.class_names == tuple("abcdefgh")
    for given, message in (
        (list("abc"), "as many as the model's classes, 8, got 3"),
        ("kinetics400", "as many as the model's classes, 8, got 400"),
        ("nowhere.txt", "got 'nowhere.txt', which is no file"),
    ):
        with pytest.raises(UserError, match=message):
            Predictor(path, class_names=given)


def test_class_names_of_another_number_in_the_checkpoint_are_refused(checkpoint):
    with pytest.raises(UserError, match="as many as the model's classes, 8, got 2"):
        Predictor(checkpoint(class_names=["a", "b"]))


def test_an_autoencoder_has_no_classifier(checkpoint, tmp_path):
    message = "must be a classifier's.*autoencoder has no classes"
    with pytest.raises(UserError, match=message):
        Predictor(checkpoint(SSL))
    path = str(tmp_path / "mae.safetensors")
    save_file(mae_hiera_micro_8x64().state_dict(), path)
    for model in (None, "hiera_micro_8x64"):
        with pytest.raises(UserError, match=message):
            Predictor(path, model=model)
    with pytest.raises(UserError, match=message):
        Predictor("mae_k400", model="hiera_base_16x224")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.pyth",), "checkpoint must be a checkpoint file, got 'nothing.pyth'"),
        ((), "checkpoint must be given, .* Try --model hiera_base_16x224"),
        (("mae_k400_ft_k400",), "must go with the model.*hiera_base_16x224"),
    ],
)
def test_a_checkpoint_that_is_none_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Predictor(*arguments)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_there_is_refused(checkpoint, device):
    with pytest.raises(UserError, match=f"device must be one of this machine.*'{device}'"):
        Predictor(checkpoint(), device=device)


def test_numbers_of_views_that_cannot_be_are_refused(checkpoint):
    for settings, message in (
        ({"num_clips": 0}, "num_clips must be at least 1"),
        ({"num_crops": 2}, "num_crops must be 1 or 3"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
    ):
        with pytest.raises(UserError, match=message):
            Predictor(checkpoint(), **settings)


def test_weights_without_a_config_need_a_model_or_a_config(checkpoint, small_cfg, tmp_path):
    bare = str(tmp_path / "bare.pyth")
    torch.save(torch.load(checkpoint(), weights_only=True)["model_state"], bare)
    with pytest.raises(UserError, match="does not say of which model.*--model.*--cfg"):
        Predictor(bare)
    cfg = small_cfg()
    assert Predictor(bare, cfg=cfg).cfg.DATA == cfg.DATA
    whole = str(tmp_path / "whole.safetensors")
    save_file(hiera_micro_8x64(num_classes=5).state_dict(), whole)
    predictor = Predictor(whole, model="hiera_micro_8x64")
    assert len(predictor.class_names) == 5
    assert (predictor.cfg.DATA.NUM_FRAMES, predictor.cfg.DATA.TEST_CROP_SIZE) == (8, 64)


def test_published_weights_have_the_names_of_kinetics(tmp_path, monkeypatch):
    """Random weights of the published size, where the published file would be."""
    monkeypatch.setenv("HIERA_VIDEO_WEIGHTS", str(tmp_path))
    state = hiera_video.hiera_base_16x224().state_dict()
    save_file(state, tmp_path / "hiera_base_16x224.safetensors")
    predictor = Predictor("mae_k400_ft_k400", model="hiera_base_16x224")
    assert predictor.class_names[363] == "training dog"
    assert predictor.cfg.TEST.NUM_TEMPORAL_CLIPS == 5
    assert predictor.cfg.DATA.STD == (0.225, 0.225, 0.225)


def test_broken_weights_are_told(checkpoint, test_videos):
    predictor = Predictor(checkpoint())
    with torch.no_grad():
        predictor.model.head.projection.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="outputs are not finite"):
        predictor(test_videos[0])


def test_the_package_alone_leads_to_its_modules_of_models():
    code = "import hiera_video; hiera_video.models.hiera.Hiera; hiera_video.models.load.load_model"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_are_imported_without_decoders():
    code = "import sys, hiera_video; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "Predictor" in hiera_video.__all__
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        hiera_video.Predicter  # noqa: B018


def test_a_folder_of_an_export_gives_the_same(checkpoint, small_cfg, test_videos, tmp_path):
    path = checkpoint(
        "DATA.SAMPLING_RATE 1 DATA.TARGET_FPS 15 DATA.MEAN [0.4,0.5,0.6] "
        "TEST.NUM_TEMPORAL_CLIPS 2 TEST.NUM_SPATIAL_CROPS 1"
    )
    folder = str(tmp_path / "exported")
    export_model(Export(path, folder), tell=lambda line: None)
    settings = {"num_clips": 2, "num_crops": 1}
    ours, theirs = Predictor(folder), Predictor(path)  # views among it
    assert (ours.cfg.TEST.NUM_TEMPORAL_CLIPS, ours.cfg.TEST.NUM_SPATIAL_CROPS) == (2, 1)
    assert ours.class_names == tuple(CLASSES)
    for one, other in zip(ours(test_videos[:2]), theirs(test_videos[:2]), strict=True):
        assert np.allclose(one.scores, other.scores, atol=1e-6)
    # What it says of its clips matters.
    facts = tmp_path / "exported" / "hiera_video.json"
    facts.write_text(facts.read_text().replace("15.0", "30.0"))
    assert not np.allclose(Predictor(folder, **settings)(test_videos[0]).scores, other.scores)
    facts.write_text(facts.read_text().replace('"dense"', '"sparse"'))
    with pytest.raises(UserError, match="hiera_video.json' does not say how clips .*dense"):
        Predictor(folder)
    assert Predictor(folder, cfg=small_cfg()).cfg.DATA.TARGET_FPS == small_cfg().DATA.TARGET_FPS
    facts.unlink()
    bare = Predictor(folder)
    assert (bare.is_named, bare.cfg.DATA.TEST_CROP_SIZE, len(bare.class_names)) == (False, 32, 8)


def test_an_autoencoder_will_do_where_no_classes_are_asked_for(tmp_path):
    model = mae_hiera_micro_8x64()
    model.save_pretrained(tmp_path / "mae")
    weights = tmp_path / "mae" / "model.safetensors"
    for found in (
        load_trained(tmp_path / "mae", classifier=False),
        load_trained(weights, model="mae_hiera_micro_8x64", classifier=False),
    ):
        assert (found.cfg.TASK, found.cfg.DATA.TEST_CROP_SIZE, found.class_names) == ("ssl", 64, ())
        assert torch.equal(found.model.mask_token, model.mask_token)


def test_an_exported_model_of_images_predicts_as_its_run_does(small_cfg, videos, tmp_path):
    launch(small_cfg("DATA.NUM_FRAMES 1 MODEL.MODEL_NAME hiera_tiny_224 SOLVER.MAX_EPOCH 1"))
    checkpoint = str(tmp_path / "output" / "checkpoints" / "checkpoint_epoch_00001.pyth")
    folder = str(tmp_path / "exported")
    export_model(Export(checkpoint, folder), tell=lambda line: None)
    run, exported = Predictor(checkpoint), Predictor(folder)
    assert exported.cfg.DATA.NUM_FRAMES == 1
    assert exported.cfg.DATA.TEST_CROP_SIZE == 32
    one, other = run(videos["h264_b.mp4"]), exported(videos["h264_b.mp4"])
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.class_names == other.class_names


def test_a_folder_of_another_kind_is_refused(tmp_path):
    mae_hiera_micro_8x64().save_pretrained(tmp_path / "mae")
    with pytest.raises(UserError, match="must be a classifier's.*autoencoder has no classes"):
        Predictor(tmp_path / "mae")
    (tmp_path / "mae" / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not readable JSON"):
        Predictor(tmp_path / "mae")


def test_a_saved_config_needs_no_temporary_file(checkpoint, monkeypatch, tmp_path):
    path = checkpoint()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert load_trained(path, device="cpu").cfg.MODEL.NUM_CLASSES


@pytest.mark.parametrize("squared", [True, False])
def test_pixels_that_are_not_square_are_shown_as_the_config_says(
    checkpoint, tmp_path, make_video, index_frames, squared
):
    path = make_video(tmp_path / "wide.mp4", index_frames(20), pixel_ratio=Fraction(2))
    predictor = Predictor(checkpoint(f"DATA.SQUARE_PIXELS {squared}"))
    expected = {}
    for way in (True, False):
        with open_video(path, Decoding("auto", way)) as reader:
            frames_THWC = reader.frames_at(range(reader.num_frames))
            expected[way] = predictor(frames_THWC, fps=reader.fps).scores
    assert np.allclose(predictor(path).scores, expected[squared], atol=1e-6)
    assert not np.allclose(expected[True], expected[False], atol=1e-6)
    window, *_ = file_windows(predictor, path, make_grid(predictor.cfg))
    turned = replace(predictor.cfg.DATA, SQUARE_PIXELS=not squared)
    predictor.cfg = replace(predictor.cfg, DATA=turned)
    other, *_ = file_windows(predictor, path, make_grid(predictor.cfg))
    assert not np.allclose(window.prediction.scores, other.prediction.scores, atol=1e-6)


@pytest.mark.parametrize("name", ["palette.avi", "palette.mov", "grey.mov"])
def test_palettes_are_predicted_in_their_colours(checkpoint, videos, decode_all, name):
    predictor = Predictor(checkpoint())
    of_frames = predictor(np.stack(decode_all(videos[name])), fps=30)
    assert np.allclose(predictor(videos[name]).scores, of_frames.scores, atol=1e-6)
    black = predictor(np.zeros((40, 48, 64, 3), np.uint8), fps=30)
    assert not np.allclose(of_frames.scores, black.scores, atol=1e-6)
