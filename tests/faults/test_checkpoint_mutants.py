"""Damaged checkpoints and folders give a model or a one-line error; the full run takes minutes."""

import sys
from pathlib import Path

import pytest
import torch

from hiera_video.checkpoints.matching import start_from_weights
from hiera_video.config import load_config, to_yaml
from hiera_video.inference.load import load_trained
from hiera_video.models.build import build_model
from hiera_video.models.load import from_pretrained
from hiera_video.utils.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))  # as python does for the scripts here
from checkpoint_mutants import checkpoint_mutant, folder_mutant


@pytest.fixture(scope="module")
def cfg():
    return load_config("configs/Demo/HIERA_MICRO.yaml")


@pytest.fixture(scope="module")
def content(cfg):
    """Return the checkpoint that a run of the micro model saves after one step."""
    model = build_model(cfg)
    names, parameters = zip(*model.named_parameters(), strict=True)
    group = {"params": list(parameters), "names": list(names), "lr_scale": 1.0}
    optimizer = torch.optim.AdamW([group])
    size = cfg.DATA.TRAIN_CROP_SIZE
    model(torch.zeros(1, 3, cfg.DATA.NUM_FRAMES, size, size)).sum().backward()
    optimizer.step()
    return {
        "epoch": 1,
        "iteration": 0,
        "model_state": model.state_dict(),
        "ema_state": {name: value.clone() for name, value in model.state_dict().items()},
        "ema_steps": 1,
        "optimizer_state": optimizer.state_dict(),
        "cfg": to_yaml(cfg),
        "scaler_state": {},
        "class_names": None,
        "rng_states": [{"cpu": torch.get_rng_state()}],
    }


def ends_well(load):
    """Return whether a model was loaded; raise any error but a one-line UserError."""
    try:
        load()
        said = ""
    except UserError as error:
        said = str(error)
    assert said.isprintable(), ascii(said)
    return not said


@pytest.mark.slow
def test_damaged_checkpoints_end_in_a_model_or_in_one_line(cfg, content, tmp_path):
    path = tmp_path / "checkpoint.pyth"
    model = build_model(cfg)
    outcomes = []
    classes = cfg.MODEL.NUM_CLASSES
    for number in range(126):
        _, data = checkpoint_mutant(number, 5, content)
        path.write_bytes(data)
        outcomes += [
            ends_well(lambda: start_from_weights(model, str(path), key="K", num_classes=classes)),
            ends_well(lambda: load_trained(str(path), device="cpu")),
        ]
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert 20 < sum(outcomes) < 232  # harmless and harmful ones


@pytest.mark.slow
def test_damaged_folders_end_in_a_model_or_in_one_line(cfg, tmp_path):
    facts = {"model_name": "m", "clips": {"num_clips": 5, "mean": [0.45] * 3, "sampling": "dense"}}
    build_model(cfg).save_pretrained(tmp_path / "whole", facts=facts)
    load_trained(str(tmp_path / "whole"), device="cpu")
    outcomes = []
    for number in range(96):
        folder = tmp_path / str(number)
        folder_mutant(number, 5, tmp_path / "whole", folder)
        outcomes += [
            ends_well(lambda folder=folder: from_pretrained(folder)),
            ends_well(lambda folder=folder: load_trained(str(folder), device="cpu")),
        ]
    assert 5 < sum(outcomes) < 187


def test_a_damaged_checkpoint_can_be_made_again():
    content = {"model_state": {"a.weight": torch.ones(3, 4)}, "epoch": 1, "cfg": "RNG_SEED: 1\n"}
    content["optimizer_state"] = {
        "state": {0: {"step": torch.ones(())}},
        "param_groups": [{"a": 1}],
    }
    for number in (0, 1, 2, 4, 5, 7, 8, 11, 13):
        assert checkpoint_mutant(number, 3, content) == checkpoint_mutant(number, 3, content)
    assert content["model_state"]["a.weight"].shape == (3, 4)  # it is damaged in a copy
