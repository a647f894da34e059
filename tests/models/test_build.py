from pathlib import Path

import pytest
import torch

from hiera_video.config import load_config
from hiera_video.models import baselines
from hiera_video.models.build import build_model
from hiera_video.utils.errors import UserError

CONFIGS = sorted(p for p in Path("configs").rglob("*.yaml") if not p.name.startswith("_"))


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_shipped_config_builds_its_model(path):
    cfg = load_config(str(path))
    with torch.device("meta"):
        model = build_model(cfg)
        size = (cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)
        logits = model.eval()(torch.empty(1, 3, *size))
    assert logits.shape == (1, cfg.MODEL.NUM_CLASSES)


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
    with pytest.raises(UserError, match="takes input_size, num_classes, .*'naive'.*'input_size'"):
        build_model(cfg)
