"""On a CUDA device: the CPU's numbers, real runs in bfloat16, and what only a GPU can refuse."""

import copy
from pathlib import Path

import numpy as np
import pytest
import simplejson
import torch
import torch.nn.functional as F

from hiera_video import Predictor
from hiera_video.checkpoints.run_folder import checkpoint_path
from hiera_video.engine.launch import launch
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.models.masking import tube
from hiera_video.models.parts.layers import MAX_WINDOWS, attend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ON_GPU = "NUM_GPUS 1 DATA_LOADER.NUM_WORKERS 2"


@pytest.fixture(autouse=True)
def exact_convolutions():
    """Float32 means float32: no TF32, which rounds as the CPU does not."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def stats_of(cfg, kind):
    lines = (Path(cfg.OUTPUT_DIR) / "stdout.log").read_text().splitlines()
    entries = [simplejson.loads(line.split("json_stats: ")[1]) for line in lines if kind in line]
    return [entry for entry in entries if entry["_type"] == kind]


def test_a_classifier_has_the_gradients_of_the_cpu():
    torch.manual_seed(0)
    model = hiera_micro_8x64(num_classes=7).train()
    clips, labels = torch.randn(3, 3, 8, 64, 64), torch.tensor([0, 3, 6])
    losses, gradients = [], []
    for device in ("cpu", "cuda"):
        one = copy.deepcopy(model).to(device)
        loss = F.cross_entropy(one(clips.to(device)), labels.to(device))
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: p.grad.cpu() for name, p in one.named_parameters()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7, name


@pytest.mark.parametrize("keep_ratio", [1.0, 0.5])
def test_an_autoencoder_has_the_loss_and_the_prediction_of_the_cpu(keep_ratio):
    torch.manual_seed(0)
    model = mae_hiera_micro_8x64().eval()
    clips = torch.randn(2, 3, 8, 64, 64)
    generator = torch.Generator().manual_seed(1)
    visible = tube(model.unit_grid, num_clips=2, ratio=0.5, generator=generator)
    with torch.no_grad():
        there = model(clips, visible)
        here = copy.deepcopy(model).cuda()(clips.cuda(), visible)
    assert here.loss.item() == pytest.approx(there.loss.item(), rel=1e-5)
    assert torch.allclose(here.pred.cpu(), there.pred, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_windows_than_a_grid_of_cuda_holds(dtype):
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(MAX_WINDOWS + 9, 1, 4, 8, device="cuda", dtype=dtype, requires_grad=True)
        for _ in range(3)
    )
    out = attend(query, key, value)
    out.sum().backward()
    weights = (query[-9:].double() @ key[-9:].double().mT / 8**0.5).softmax(-1)
    expected = weights @ value[-9:].double()
    assert (out[-9:].double() - expected).abs().max() < (1e-5 if dtype == torch.float32 else 3e-2)
    assert value.grad[-9:].abs().sum() > 0


@pytest.mark.parametrize("compiled", ["none", "encoder", "step"])
def test_a_run_in_bfloat16_trains_saves_float32_and_is_tested(small_cfg, compiled):
    cfg = small_cfg(
        ON_GPU, f"TRAIN.MIXED_PRECISION True MODEL.COMPILE {compiled} SOLVER.MAX_EPOCH 3"
    )
    result = launch(cfg)
    assert result.scores_NK.shape == (8, 8)
    epochs = stats_of(cfg, "train_epoch")
    assert [entry["epoch"] for entry in epochs] == ["1/3", "2/3", "3/3"]
    assert all(0 < entry["loss"] < 10 for entry in epochs)
    assert all(entry["gpu_memory_gib"] > 0 for entry in epochs)
    state = torch.load(checkpoint_path(cfg.OUTPUT_DIR, 3), weights_only=True)
    assert {value.dtype for value in state["model_state"].values()} == {torch.float32}


def test_pretraining_runs_in_bfloat16(small_cfg):
    ssl = (
        "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 MASK.RATIO 0.5 "
        "MIXUP.ENABLE False SOLVER.LABEL_SMOOTHING 0.0 MODEL.DROPOUT_RATE 0.0 TEST.ENABLE False "
        "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 MASK.DECODER_KEEP_RATIO 0.5"
    )
    cfg = small_cfg(ON_GPU, ssl, "TRAIN.MIXED_PRECISION True")
    launch(cfg)
    assert all(0 < entry["loss"] < 3 for entry in stats_of(cfg, "train_epoch"))


def test_pixels_finished_on_the_gpu_train_alike(small_cfg, tmp_path):
    losses = []
    for finished in ("True", "False"):
        cfg = small_cfg(
            ON_GPU,
            f"DATA_LOADER.NORMALIZE_ON_DEVICE {finished} OUTPUT_DIR {tmp_path / finished}",
            "TRAIN.MIXED_PRECISION False MODEL.DROP_PATH_RATE 0.0 TEST.ENABLE False",
        )
        launch(cfg)
        losses.append([entry["loss"] for entry in stats_of(cfg, "train_iter")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_run_goes_on_and_is_tested_like_on_the_cpu(small_cfg, tmp_path):
    keys = "TRAIN.MIXED_PRECISION False MODEL.DROP_PATH_RATE 0.3"
    whole = small_cfg(ON_GPU, keys, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    parts = small_cfg(ON_GPU, keys, f"OUTPUT_DIR {tmp_path / 'parts'} TEST.ENABLE False")
    launch(parts)
    Path(checkpoint_path(parts.OUTPUT_DIR, 2)).unlink()
    launch(parts)  # its second epoch again, with the generator of the GPU as it was
    one, other = (
        torch.load(checkpoint_path(cfg.OUTPUT_DIR, 2), weights_only=True, map_location="cpu")
        for cfg in (whole, parts)
    )
    for name, value in one["model_state"].items():
        assert torch.allclose(value, other["model_state"][name], atol=1e-5), name

    path = checkpoint_path(whole.OUTPUT_DIR, 2)
    scores = []
    for num_gpus in (0, 1):
        cfg = small_cfg(
            keys,
            f"NUM_GPUS {num_gpus} TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {path}",
            f"OUTPUT_DIR {tmp_path / str(num_gpus)}",
        )
        scores.append(launch(cfg).scores_NK)
    assert np.allclose(*scores, atol=1e-4)


def test_a_predictor_takes_the_gpu_by_itself(small_cfg, tiny_set):
    cfg = small_cfg(ON_GPU, "TEST.ENABLE False")
    launch(cfg)
    video = str(next(Path(tiny_set).rglob("*.mp4")))
    path = checkpoint_path(cfg.OUTPUT_DIR, 2)
    by_gpu, by_cpu = (Predictor(path, device=device) for device in (None, "cpu"))
    assert by_gpu.device.type == "cuda"
    assert np.allclose(by_gpu(video).scores, by_cpu(video).scores, atol=2e-2)
