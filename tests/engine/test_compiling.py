"""torch.compile in a run: the same numbers and keys, and clear words where it cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import simplejson
import torch
from torch import nn

from hiera_video.checkpoints.run_folder import checkpoint_path
from hiera_video.engine.compiling import compile_for_training, refuse_missing_compiler
from hiera_video.engine.launch import launch
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.utils.errors import UserError


@pytest.mark.parametrize("what", ["encoder", "step"])
def test_keys_and_evaluation_are_those_of_the_plain_model(what):
    model = hiera_micro_8x64(num_classes=3)
    keys, clips = list(model.state_dict()), torch.randn(1, 3, 8, 64, 64)
    before = model.eval()(clips)
    compile_for_training(model, what)
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_modules()][1] == "patch_embed"
    assert torch.equal(model(clips), before)  # at once: nothing is compiled


def test_a_model_without_an_encoder_is_compiled_as_a_whole_or_not_at_all():
    with pytest.raises(UserError, match="MODEL.COMPILE must be none or step for a Linear"):
        compile_for_training(nn.Linear(1, 1), "encoder")
    compile_for_training(nn.Linear(1, 1), "step")
    compile_for_training(nn.Linear(1, 1), "none")


def test_a_machine_without_a_compiler_is_told_before_anything_is_written(
    small_cfg, tmp_path, monkeypatch
):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    cfg = small_cfg("MODEL.COMPILE encoder")
    with pytest.raises(UserError, match=r"MODEL.COMPILE must be none without a C\+\+ compiler"):
        launch(cfg)
    assert not Path(cfg.OUTPUT_DIR).exists()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler"):
        refuse_missing_compiler("step", "cpu")
    monkeypatch.setenv("CXX", sys.executable)
    refuse_missing_compiler("step", "cpu")
    refuse_missing_compiler("none", "cuda")


BROKEN = """
import torch
from torch import nn
from hiera_video.engine.compiling import compile_for_training
from hiera_video.utils import cli

def main():
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU())
    compile_for_training(model, "step")
    model(torch.zeros(1, 2))

cli.run(main)
"""


@pytest.mark.slow
def test_a_compiler_that_does_not_work_is_told_in_one_line(tmp_path):
    environment = os.environ | {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", BROKEN]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    assert "error: MODEL.COMPILE: the model could not be compiled" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("what", ["encoder", "step"])
@pytest.mark.parametrize("task", ["classify", "ssl"])
def test_a_compiled_run_has_the_losses_of_a_plain_one(small_cfg, tmp_path, monkeypatch, what, task):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    keys = "TEST.ENABLE False MODEL.DROP_PATH_RATE 0.3 MODEL.ACT_CHECKPOINT True"
    if task == "ssl":
        keys += (
            " TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 MASK.RATIO 0.5 "
            "MIXUP.ENABLE False SOLVER.LABEL_SMOOTHING 0.0 MODEL.DROPOUT_RATE 0.0 "
            "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 MASK.DECODER_DEPTH 1 "
            "MASK.DECODER_EMBED_DIM 32"
        )
    plain = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'plain'}")
    compiled = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'compiled'} MODEL.COMPILE {what}")
    launch(plain)
    launch(compiled)
    assert losses_of(compiled) == pytest.approx(losses_of(plain), rel=1e-4)
    one, other = (
        torch.load(checkpoint_path(cfg.OUTPUT_DIR, 2), weights_only=True)["model_state"]
        for cfg in (plain, compiled)
    )
    assert one.keys() == other.keys()


def losses_of(cfg):
    lines = (Path(cfg.OUTPUT_DIR) / "stdout.log").read_text().splitlines()
    stats = [simplejson.loads(line.split("json_stats: ")[1]) for line in lines if "_iter" in line]
    assert len(stats) == 4
    return [entry["loss"] for entry in stats]
