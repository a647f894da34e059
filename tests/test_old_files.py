"""Files that release 0.1.0 wrote, before its modules moved, still load.

tests/golden/README.md says how `old_files.tar.xz` was made. All its weights are CONSTANT.
"""

import shutil
from pathlib import Path

import pytest
import torch

from hiera_video import Predictor, from_pretrained, load_model
from hiera_video.engine.launch import launch

CONSTANT = 0.03125
FILE, FOLDER = "checkpoint_epoch_00001.pyth", "checkpoint_epoch_00001.dcp"
# The clips and the classes of the run that wrote them.
SIZE = {"input_size": (4, 32, 32), "num_classes": 8}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    shutil.unpack_archive(Path(__file__).parent / "golden/old_files.tar.xz", folder)
    return folder


def is_constant(model):
    return all(bool((value == CONSTANT).all()) for value in model.state_dict().values())


@pytest.mark.parametrize("name", [FILE, FOLDER])
def test_weights_load(old, name):
    model = load_model("hiera_micro_8x64", checkpoint=old / name, verbose=False, **SIZE)
    assert is_constant(model)


@pytest.mark.parametrize("name", [FILE, FOLDER, "exported"])
def test_a_predictor_loads(old, name, videos):
    prediction = Predictor(old / name)(videos["h264_index_first.mp4"])
    # With equal weights, every class has the same score.
    assert prediction.scores == pytest.approx([1 / 8] * 8)


def test_an_exported_folder_loads(old):
    model = from_pretrained(old / "exported")
    assert is_constant(model)
    assert model(torch.zeros(1, 3, 4, 32, 32)).shape == (1, 8)


@pytest.mark.parametrize("name", [FILE, FOLDER])
def test_a_training_resumes(old, name, small_cfg):
    cfg = small_cfg("TRAIN.EMA_DECAY 0.9 SOLVER.MAX_EPOCH 2 TEST.ENABLE False")
    folder = Path(cfg.OUTPUT_DIR, "checkpoints")
    folder.mkdir(parents=True)
    copy = shutil.copytree if name == FOLDER else shutil.copy
    copy(old / name, folder / name)
    launch(cfg)
    log = Path(cfg.OUTPUT_DIR, "stdout.log").read_text()
    assert "epochs 2 to 2" in log
    assert (folder / "checkpoint_epoch_00002.pyth").exists()
