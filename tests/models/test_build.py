import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
import torch

from hiera_video import models
from hiera_video.config import ConfigError, load_config, rules
from hiera_video.config.rules import PACKAGE
from hiera_video.models import baselines
from hiera_video.models.build import build_model
from hiera_video.utils.errors import UserError

CONFIGS = sorted(
    path
    for path in Path("configs").rglob("*.yaml")
    # Sweeps are grids of configs: tests/tools/test_sweep.py
    if not path.name.startswith("_") and path.parent.name != "Sweeps"
)


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_shipped_config_builds_its_model(path):
    cfg = load_config(str(path))
    with torch.device("meta"):
        try:
            model = build_model(cfg)
        except UserError as error:
            if "the extra `peers`" in str(error):
                pytest.skip("the peers extra is not installed")
            raise
        size = (cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
        output = model.eval()(torch.empty(1, 3, *size))
    if cfg.TASK == "classify":
        assert output.shape == (1, cfg.MODEL.NUM_CLASSES)
        return
    assert output.pred.shape == output.target.shape
    side = 8 if path.name == "VIT_MICRO_MAE_PT.yaml" else 16
    assert output.pred.shape[1] == side * side * 3
    assert len(model.decoder_blocks) == cfg.MASK.DECODER_DEPTH
    assert model.decoder_blocks[0].attn.num_heads == cfg.MASK.DECODER_NUM_HEADS
    assert model.decoder_embed.out_features == cfg.MASK.DECODER_EMBED_DIM


# Only families are offered: no helper file, no room, no file that a test has written.
FAMILIES = r"\(baselines, (?!.*(build|load|origin|parts|masking|written)[,)]).*hiera, hiera_mae.*\)"


def test_a_name_that_is_no_model_is_answered_with_those_there_are():
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", ["MODEL.MODEL_NAME", "hiera_mikro_8x64"])
    with pytest.raises(UserError, match=r"hiera_huge_16x224.*Did you mean hiera_micro_8x64\?"):
        build_model(cfg)


def test_a_function_that_does_not_take_the_settings_is_refused(monkeypatch):
    def naive(num_classes):
        return torch.nn.Linear(1, num_classes)

    naive.__module__ = baselines.__name__  # as if it were written there
    monkeypatch.setattr(baselines, "naive", naive, raising=False)
    words = ["MODEL.ARCH", "baselines", "MODEL.MODEL_NAME", "naive"]
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", words)
    with pytest.raises(UserError, match="takes input_size, .*num_classes, .*'naive'.*'input_size'"):
        build_model(cfg)


def test_files_of_the_room_that_are_no_family_are_not_offered():
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml")
    cfg = dataclasses.replace(cfg, MODEL=dataclasses.replace(cfg.MODEL, ARCH="masking"))
    with pytest.raises(UserError, match=rf"{FAMILIES}, got 'masking'"):
        build_model(cfg)


@pytest.fixture
def new_file(tmp_path, monkeypatch):
    """Write a file into a copy of models/, which stands in for the real folder."""
    for entry in PACKAGE.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    folder = tmp_path / "models"
    folder.unlink()
    shutil.copytree(PACKAGE / "models", folder)
    monkeypatch.setattr(rules, "PACKAGE", tmp_path)
    monkeypatch.setattr(models, "__path__", [str(folder)])
    yield (folder / "written_by_a_test.py").write_text
    sys.modules.pop("hiera_video.models.written_by_a_test", None)
    vars(models).pop("written_by_a_test", None)


FAMILY = """
from torch import nn

def tiny(*, input_size, num_classes, head_dropout, drop_path_rate):
    return nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, num_classes))
"""
HELPERS = (
    "def sizes(*, input_size): pass",
    "def load(name, **settings): pass",
    "def _hidden(*, input_size, drop_path_rate): pass",
    "class Net:\n    def build(self, *, input_size, drop_path_rate): pass",
    "def broken(",
)


def test_a_new_file_with_a_function_of_the_settings_is_a_family(new_file):
    new_file(FAMILY)
    words = ["MODEL.ARCH", "written_by_a_test", "MODEL.MODEL_NAME", "tiny"]
    model = build_model(load_config("configs/Demo/HIERA_MICRO.yaml", words))
    assert model(torch.zeros(1, 3, 8, 64, 64)).shape == (1, 8)


@pytest.mark.parametrize("source", HELPERS)
def test_a_new_helper_file_is_no_family(new_file, source):
    new_file(source)
    words = ["MODEL.ARCH", "written_by_a_test", "MODEL.MODEL_NAME", "tiny"]
    with pytest.raises(ConfigError, match=rf"{FAMILIES}, got 'written_by"):
        load_config("configs/Demo/HIERA_MICRO.yaml", words)


@pytest.mark.parametrize("keys", ["MODEL.LINEAR_PROBE True", "MODEL.FREEZE_LAYERS 1"])
def test_a_model_that_names_no_layers_cannot_be_frozen(keys):
    words = f"MODEL.ARCH baselines MODEL.MODEL_NAME x3d_s {keys}".split()
    with pytest.raises(UserError, match="FREEZE_LAYERS 0 for x3d_s, which does not say what its"):
        build_model(load_config("configs/Demo/HIERA_MICRO.yaml", words))


def test_a_classifier_cannot_be_frozen_as_a_whole():
    words = ["MODEL.FREEZE_LAYERS", "7"]
    with pytest.raises(UserError, match="must be below 7, the layers of hiera_micro_8x64 .*got 7"):
        build_model(load_config("configs/Demo/HIERA_MICRO.yaml", words))


def test_the_decoder_is_checked_with_the_rest_of_the_model():
    words = "TASK ssl TEST.ENABLE False MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64"
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", [*words.split(), "DATA.NUM_FRAMES", "7"])
    with pytest.raises(UserError, match=r"input_size must be divisible.*DATA\.NUM_FRAMES"):
        build_model(cfg)
