import os
import subprocess
import sys

import av
import pytest
import torch
from matplotlib.image import imread

from hiera_video.config import load_config, to_yaml
from hiera_video.models.build import build_model
from hiera_video.models.hiera import hiera_micro_8x64

CLASSES = ["clockwise", "counter-clockwise", "down", "grows", "left", "right", "shrinks", "up"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return a checkpoint of an untrained classifier, as a run saves it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "checkpoint_epoch_00001.pyth"
    content = {
        "model_state": hiera_micro_8x64(num_classes=8).state_dict(),
        "cfg": to_yaml(load_config("configs/Demo/HIERA_MICRO.yaml")),
        "class_names": CLASSES,
    }
    torch.save(content, path)
    return path


def film_size(path):
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return len(frames), frames[0].height, frames[0].width


def test_evidence_becomes_a_picture_and_a_film(run_tool, checkpoint, small_set, tmp_path):
    videos = " ".join(map(str, sorted(small_set.glob("val/*/00000.mp4"))[:2]))  # of the same name
    outcome = run_tool(
        "visualize", f"evidence {videos} --checkpoint {checkpoint} --label left --output {tmp_path}"
    )
    assert outcome.status == 0, outcome.err
    first, second = outcome.out.splitlines()
    assert "(left, " in first
    assert "moves_down_00000_evidence.png" in second  # the folder tells them apart
    picture = imread(next(tmp_path.glob("*_00000_evidence.png")))
    assert picture.shape[1] > 8 * 112
    frames, height, width = film_size(next(tmp_path.glob("*_00000_evidence.mp4")))
    assert frames == 8
    assert width > 2 * 224 > height > 224


@pytest.mark.slow  # to import it takes seconds
def test_a_baseline_has_no_evidence(run_tool, small_set, tmp_path):
    cfg = load_config(None, ["MODEL.ARCH", "baselines", "MODEL.MODEL_NAME", "x3d_s"])
    torch.save({"model_state": build_model(cfg).state_dict(), "cfg": to_yaml(cfg)}, tmp_path / "x")
    video = next(small_set.glob("val/*/00000.mp4"))
    outcome = run_tool("visualize", f"evidence {video} --checkpoint {tmp_path}/x")
    assert outcome.status == 1
    assert outcome.err.startswith("error: --checkpoint or --model must be a Hiera that classifies")


def test_masks_need_no_weights(run_tool, small_set, tmp_path):
    video = next(small_set.glob("val/*/00000.mp4"))
    outcome = run_tool("visualize", f"masks {video} --ratio 0.8 --output {tmp_path}")
    assert outcome.status == 0, outcome.err
    frames, _, width = film_size(tmp_path / "00000_masks.mp4")
    assert frames == 8
    assert width > 4 * 224


def test_what_cannot_be_shown_is_told_in_a_line(run_tool, checkpoint, small_set, tmp_path):
    video = next(small_set.glob("val/*/00000.mp4"))
    line = f"evidence {video} --checkpoint {checkpoint} --output {tmp_path}"
    outcome = run_tool("visualize", f"{line} --label sideways")
    assert outcome.status == 1
    assert "--label must be a class's name or number, got 'sideways'" in outcome.err
    assert "clockwise, counter-clockwise" in outcome.err
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    outcome = run_tool(
        "visualize", f"evidence {broken} {video} --checkpoint {checkpoint} --output {tmp_path}"
    )
    assert outcome.status == 1
    assert "1 of 2 videos could not be shown" in outcome.err
    assert (tmp_path / "00000_evidence.png").exists()
    words = [sys.executable, os.path.abspath("tools/visualize.py"), "masks", str(video), "--ratio"]
    done = subprocess.run([*words, "0.8"], cwd=tmp_path)  # no configs/ here
    assert done.returncode == 0
    outcome = run_tool("visualize", f"masks {video} --cfg configs/Demo/HIERA_MICRO.yaml")
    assert outcome.status == 1
    assert "--cfg must be one of pretraining" in outcome.err
    outcome = run_tool("visualize", f"masks {video} --ratio 1 --output {tmp_path}")
    assert "--ratio must be above 0 and below 1" in outcome.err
