"""The numpy example of docs/export.md gives what Predictor gives."""

import numpy as np
import pytest
import torch

from hiera_video import Predictor
from hiera_video.config import load_config, to_yaml
from hiera_video.data.transforms.pipeline import TestTransform
from hiera_video.models.hiera import hiera_micro_8x64

from ..doc_pages import ROOT, blocks

SIZES = [(48, 64, 32), (256, 340, 224), (90, 47, 64), (720, 1280, 224), (33, 33, 48), (64, 64, 64)]


@pytest.fixture(scope="module")
def example():
    """What the text of the page defines."""
    pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    (text,) = (text for text in blocks(ROOT / "docs" / "export.md", "python") if "def " in text)
    names = {}
    exec(compile(text, "docs/export.md", "exec"), names)
    return names


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
@pytest.mark.parametrize("num_crops", [1, 3])
def test_pixels_are_within_one_level(example, height, width, size, num_crops):
    rng = np.random.default_rng(0)
    frames_THWC = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    short = min(height, width)
    small = example["resize"](frames_THWC, width * size // short, axis=2)
    small = example["resize"](small, height * size // short, axis=1)
    found_STHWC = np.stack(example["crops"](small, size, num_crops))
    transform = TestTransform(crop_size=size, num_crops=num_crops, mean=[0.0] * 3, std=[1.0] * 3)
    expected_STHWC = transform(frames_THWC).permute(0, 2, 3, 4, 1).numpy() * 255
    assert found_STHWC.shape == expected_STHWC.shape
    difference = np.abs(found_STHWC - expected_STHWC)
    assert difference.max() <= 1.001
    assert (difference > 0.5).mean() <= 0.03


def save_run(folder, *words):
    """Save an untrained model as a run does, one that is sure of what it says."""
    sizes = "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32"
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", [*sizes.split(), *words])
    torch.manual_seed(0)
    model = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8).eval()
    with torch.no_grad():
        model.head.projection.weight.mul_(8)
    path = str(folder / "checkpoint_epoch_00001.pyth")
    torch.save({"model_state": model.state_dict(), "cfg": to_yaml(cfg)}, path)
    return path, model, cfg


@pytest.fixture
def video(make_video, tmp_path):
    rng = np.random.default_rng(0)
    scene_HWC = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    frames_THWC = np.stack([np.roll(scene_HWC, 3 * k, 1) for k in range(31)])
    return make_video(tmp_path / "x.mp4", frames_THWC, fps=25)


@pytest.mark.slow
def test_an_exported_graph_gives_the_probabilities_of_the_predictor(
    example, run_tool, video, tmp_path
):
    path, _, _ = save_run(tmp_path, "TEST.NUM_TEMPORAL_CLIPS", "3", "TEST.NUM_SPATIAL_CROPS", "3")
    words = f"--checkpoint {path} --output {tmp_path}/out --format onnx"
    assert run_tool("export", words).status == 0
    found_K, _ = example["predict"](video, f"{tmp_path}/out/model.onnx")
    assert np.abs(found_K - Predictor(path, device="cpu")(video).scores).max() <= 0.01


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
@pytest.mark.parametrize("num_clips", [1, 3])
def test_probabilities_are_those_of_the_predictor(example, video, tmp_path, sampling, num_clips):
    views = ["TEST.NUM_TEMPORAL_CLIPS", str(num_clips), "TEST.NUM_SPATIAL_CROPS", "3"]
    path, model, cfg = save_run(tmp_path, "DATA.SAMPLING", sampling, *views)
    expected_K = Predictor(path, device="cpu")(video).scores
    clips = {
        "shape": [3, 4, 32, 32],
        "sampling": sampling,
        "sampling_rate": cfg.DATA.SAMPLING_RATE,
        "target_fps": cfg.DATA.TARGET_FPS,
        "mean": list(cfg.DATA.MEAN),
        "std": list(cfg.DATA.STD),
        "num_clips": num_clips,
        "num_crops": 3,
    }
    views = torch.from_numpy(example["make_views"](video, clips))
    assert views.shape == (3 * num_clips, 3, 4, 32, 32)
    with torch.no_grad():
        found_K = model(views).softmax(-1).mean(0).numpy()
    assert expected_K.max() > 0.3
    assert np.abs(found_K - expected_K).max() <= 0.01
