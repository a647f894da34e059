"""Weights that another trainer wrapped, by each way in: training, test, Python and the tools."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hiera_video.engine.launch import launch
from hiera_video.export.state_dict import export_checkpoint
from hiera_video.inference.load import load_trained
from hiera_video.models.build import build_model
from hiera_video.models.load import from_pretrained, load_model
from hiera_video.visualize.reconstruct import load_autoencoder

UNWRAPPED = "unwrapped: taken from state_dict, without 'module.' before each name"
PRETRAIN = (
    "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 TEST.ENABLE False "
    "MASK.DECODER_EMBED_DIM 128 MASK.DECODER_DEPTH 2 MASK.DECODER_NUM_HEADS 4 "
    "MASK.STRATEGY random MASK.RATIO 0.5"
)


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    monkeypatch.setattr(logging.getLogger("hiera_video"), "propagate", True)  # a run stops it


@pytest.fixture
def wrapped(tmp_path):
    """Write the weights of a model as DataParallel and a trainer would; return the path."""

    def write(model):
        path = tmp_path / "wrapped.pt"
        torch.save({"state_dict": nn.DataParallel(model).state_dict(), "epoch": 7}, path)
        return str(path)

    return write


def log_of(cfg):
    return (Path(cfg.OUTPUT_DIR) / "stdout.log").read_text()


def test_training_and_test(small_cfg, wrapped):
    path = wrapped(build_model(small_cfg()))
    cfg = small_cfg(
        f"TRAIN.CHECKPOINT_FILE_PATH {path} TEST.CHECKPOINT_FILE_PATH {path} SOLVER.MAX_EPOCH 1"
    )
    launch(cfg)
    log = log_of(cfg)
    assert f"tensors loaded; {UNWRAPPED}" in log.split(f"started from {path}: ")[1]
    assert f"tensors loaded; {UNWRAPPED}" in log.split("weights: ")[1]


def test_predict_load_model_and_export_checkpoint(small_cfg, wrapped, tmp_path, caplog, capsys):
    cfg = small_cfg()
    theirs = build_model(cfg)
    path = wrapped(theirs)
    trained = load_trained(path, cfg=cfg, device="cpu")
    assert torch.equal(trained.model.norm.weight, theirs.norm.weight)
    assert caplog.text.count(f"warning: {path}: {UNWRAPPED}") == 1
    size = {"input_size": theirs.input_size}
    model = load_model(cfg.MODEL.MODEL_NAME, checkpoint=path, **size)
    assert len(model.head.projection.weight) == cfg.MODEL.NUM_CLASSES
    assert UNWRAPPED in capsys.readouterr().out
    out = str(tmp_path / "plain.safetensors")
    assert UNWRAPPED in export_checkpoint(path, out, ema=False)
    assert load_file(out).keys() == theirs.state_dict().keys()


def test_visualize_mae_and_the_heads_that_its_file_does_not_tell(small_cfg, wrapped, caplog):
    cfg = small_cfg(PRETRAIN)
    theirs = build_model(cfg)
    path = wrapped(theirs)
    model, _ = load_autoencoder(path, cfg=cfg)
    assert torch.equal(model.mask_token, theirs.mask_token)
    assert UNWRAPPED in caplog.text
    assert "does not say how many attention heads its decoder had, and here it has 4" in caplog.text


def test_pretraining_from_the_authors_file_is_warned_of(small_cfg, tmp_path):
    path = tmp_path / "mae_hiera_base_16x224.pth"
    torch.save({"model_state": build_model(small_cfg(PRETRAIN)).state_dict()}, path)
    cfg = small_cfg(PRETRAIN, f"TRAIN.CHECKPOINT_FILE_PATH {path} SOLVER.MAX_EPOCH 1")
    launch(cfg)
    warning = "warning: the decoder has 4 attention heads here and had 16 there."
    assert warning in log_of(cfg)


def test_from_pretrained(small_cfg, tmp_path, caplog):
    cfg = small_cfg(PRETRAIN)
    theirs = build_model(cfg)
    theirs.save_pretrained(tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    save_file({f"module.{n}": v for n, v in theirs.state_dict().items()}, weights)
    model = from_pretrained(tmp_path / "model")
    assert torch.equal(model.mask_token, theirs.mask_token)
    assert "without 'module.' before each name" in caplog.text
    assert "heads" not in caplog.text
    from_pretrained(tmp_path / "model", decoder_num_heads=8)
    assert "the decoder has 8 attention heads here and had 4 there" in caplog.text
