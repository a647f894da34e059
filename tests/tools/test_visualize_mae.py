from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from hiera_video.config import load_config, to_yaml
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64

SSL = (
    "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 TEST.ENABLE False "
    "MASK.DECODER_EMBED_DIM 128 MASK.DECODER_DEPTH 2 MASK.DECODER_NUM_HEADS 4 MASK.RATIO 0.5 "
    "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 DATA.NUM_FRAMES 8 TEST.VIEWS_TABLE False"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return a checkpoint of an untrained autoencoder, as a run saves it."""
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", SSL.split())
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "checkpoint_epoch_00001.pyth"
    torch.save({"model_state": mae_hiera_micro_8x64().state_dict(), "cfg": to_yaml(cfg)}, path)
    return path


@pytest.fixture
def show(run_tool, checkpoint, tmp_path):
    """Run the tool on videos; return its outcome and the folder it writes to."""

    def run(*words, folder=tmp_path / "pictures"):
        line = f"--checkpoint {checkpoint} --output {folder}"
        return run_tool("visualize_mae", " ".join([*map(str, words), line])), folder

    return run


def test_each_video_becomes_a_picture_and_a_film(show, small_set):
    videos = sorted(small_set.glob("val/*/00000.mp4"))[:2]  # of the same name
    outcome, folder = show(*videos, "--strategy random --ratio 0.75 --seed 5 --start 0.05")
    assert (outcome.status, outcome.err) == (0, "")
    stems = [f"{video.parent.name}_00000_mae" for video in videos]
    names = [f"{stem}{ending}" for stem in stems for ending in (".mp4", ".png")]
    assert sorted(path.name for path in folder.iterdir()) == names
    lines = outcome.out.splitlines()
    assert lines[0] == (
        f"{videos[0]} (random mask, 4 of 16 mask units visible): "
        f"{folder / names[1]}, {folder / names[0]}"
    )
    assert str(videos[1]) in lines[1]
    pictures = [imread(folder / name) for name in names[1::2]]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


def test_a_seed_gives_the_same_picture_again(show, small_set, tmp_path):
    (video, *_) = small_set.glob("val/*/00000.mp4")
    pictures = []
    for number, seed in enumerate((1, 1, 2)):
        outcome, folder = show(
            video, "--strategy random --seed", seed, folder=tmp_path / str(number)
        )
        assert outcome.status == 0
        pictures.append(imread(folder / "00000_mae.png"))
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_a_video_that_does_not_decode_is_named_and_the_others_go_on(show, small_set, bad_videos):
    (video, *_) = small_set.glob("val/*/00000.mp4")
    outcome, folder = show(bad_videos["noise.mp4"], video, bad_videos["missing.mp4"])
    assert outcome.status == 1
    first, second, last = outcome.err.splitlines()
    assert first.startswith(f"error: {bad_videos['noise.mp4']}: ")
    assert second == f"error: {bad_videos['missing.mp4']}: no such file."
    assert last == "2 of 3 videos could not be shown"
    assert sorted(path.name for path in folder.iterdir()) == ["00000_mae.mp4", "00000_mae.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--strategy tubes", "Did you mean tube?"),
        ("--ratio 1.5", "--ratio must be above 0 and below 1, got 1.5. Try 0.9."),
        ("--seed -1", "--seed must be at least 0, got -1. Try 0."),
        ("--model mae_hiera_bas_16x224", "Did you mean mae_hiera_base_16x224?"),
        ("--cfg configs/Demo/HIERA_MICRO.yaml", "--cfg must be one of pretraining, TASK ssl"),
    ],
)
def test_a_wrong_option_is_one_line(show, small_set, words, message):
    (video, *_) = small_set.glob("val/*/00000.mp4")
    outcome, folder = show(video, words)
    assert outcome.status == 1
    assert outcome.out == ""
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not folder.exists()


def test_a_folder_that_cannot_be_is_refused(show, small_set, checkpoint):
    (video, *_) = small_set.glob("val/*/00000.mp4")
    outcome, _ = show(video, folder=checkpoint)
    assert outcome.status == 1
    assert outcome.err.startswith("error: --output must be a folder that can be written, got")


def test_uniform_sampling_has_no_start(run_tool, checkpoint, tmp_path, small_set):
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", f"{SSL} DATA.SAMPLING uniform".split())
    file = tmp_path / "uniform.yaml"
    file.write_text(to_yaml(cfg))
    (video, *_) = small_set.glob("val/*/00000.mp4")
    line = f"{video} --checkpoint {checkpoint} --cfg {file} --output {tmp_path / 'out'}"
    assert run_tool("visualize_mae", line).status == 0
    outcome = run_tool("visualize_mae", f"{line} --start 0.1")
    assert outcome.status == 1
    assert outcome.err.startswith("error: --start needs DATA.SAMPLING dense, got uniform")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused(show, small_set):
    (video, *_) = small_set.glob("val/*/00000.mp4")
    outcome, _ = show(video, "--device cuda")
    assert outcome.status == 1
    said = "error: --device must be one of this machine (cpu), got 'cuda'. Try cpu."
    assert outcome.err.startswith(said)


def test_the_figure_of_the_docs_can_be_drawn_again(run_tool, tmp_path):
    path = tmp_path / "masking.png"
    outcome = run_tool("draw_masks", str(path))
    assert (outcome.status, outcome.err, outcome.out) == (0, "", f"wrote {path}\n")
    stored = Path("docs/masking.png")
    assert path.stat().st_size < 150_000
    assert stored.stat().st_size < 150_000
    # Pictures, not letters: fonts differ from one version of matplotlib to the next.
    drawn, kept = imread(path), imread(stored)
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept)[30:, 100:].max() <= 2 / 255
