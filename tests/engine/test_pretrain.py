"""Pretraining: TASK ssl in the engine, and fine-tuning from what it leaves.

Shape suffixes: B views, U mask units, CTHW a clip.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejson
import torch

from hiera_video.checkpoints.run_folder import checkpoint_path
from hiera_video.data.build import build_loader, read_records
from hiera_video.data.loader import Batch
from hiera_video.engine.launch import launch
from hiera_video.engine.tasks import Classify, Reconstruct, build_task
from hiera_video.models import masking
from hiera_video.models.build import build_model
from hiera_video.models.hiera_mae import MaskedAutoencoderHiera, mae_hiera_micro_8x64
from hiera_video.utils.errors import UserError

# 2 x 2 x 2 mask units: 4 frames of 64 px.
SSL = (
    "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 TEST.ENABLE False "
    "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 MASK.RATIO 0.5 AUG.ENABLE False "
    "MASK.DECODER_EMBED_DIM 32 MASK.DECODER_DEPTH 1 MASK.DECODER_NUM_HEADS 2"
)


@pytest.fixture
def ssl_cfg(small_cfg):
    """Make a config of a small pretraining run."""
    return lambda *overrides: small_cfg(SSL, *overrides)


@pytest.fixture
def watch_masks(monkeypatch):
    """Return the list of (clips, visible, decoded) of every pass of an autoencoder from then on."""
    seen = []
    forward = MaskedAutoencoderHiera.forward

    def watched(model, clips_BCTHW, visible, decoded=None):
        seen.append((clips_BCTHW, visible, decoded))
        return forward(model, clips_BCTHW, visible, decoded=decoded)

    monkeypatch.setattr(MaskedAutoencoderHiera, "forward", watched)
    return seen


def weights_of(path):
    return torch.load(path, weights_only=True)["model_state"]


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def json_stats(cfg, kind):
    with open(f"{cfg.OUTPUT_DIR}/stdout.log", encoding="utf-8") as log:
        lines = [line.split("json_stats: ")[1] for line in log if "json_stats: " in line]
    return [stats for stats in map(simplejson.loads, lines) if stats["_type"] == kind]


def test_a_run_pretrains_without_validation_test_or_labels(ssl_cfg, tiny_set, tmp_path):
    # A folder that holds the training videos' paths and nothing else.
    lines = Path(tiny_set, "train.csv").read_text().splitlines()
    paths = [str(Path(tiny_set, line.rsplit(maxsplit=1)[0])) for line in lines]
    (tmp_path / "train.csv").write_text("\n".join(paths))
    cfg = ssl_cfg(f"DATA.PATH_TO_DATA_DIR {tmp_path} TENSORBOARD.ENABLE True")
    assert launch(cfg) is None
    content = torch.load(checkpoint_path(cfg.OUTPUT_DIR, 2), weights_only=True)
    assert content["epoch"] == 2
    assert content["class_names"] is None
    assert "mask_token" in content["model_state"]
    assert "TASK: ssl" in content["cfg"]
    assert len(json_stats(cfg, "train_iter")) == 4
    assert len(json_stats(cfg, "train_epoch")) == 2
    assert json_stats(cfg, "val_epoch") == json_stats(cfg, "test_final") == []
    assert not Path(cfg.OUTPUT_DIR, "test_results.json").exists()


def test_labels_and_class_names_are_not_looked_at(ssl_cfg):
    cfg = ssl_cfg("MODEL.NUM_CLASSES 3 SOLVER.MAX_EPOCH 1")  # the set has 8
    launch(cfg)
    (batch, _) = build_loader(cfg, "train", read_records(cfg, "train")).batches(0)
    assert batch.labels_B.tolist() == [-1] * 8


@pytest.fixture(scope="module")
def ramps(tmp_path_factory, make_video):
    """A folder of 8 still videos, each brighter towards another side: visible units tell hidden."""
    folder = tmp_path_factory.mktemp("ramps")
    y, x = np.mgrid[:64, :64] / 63 - 0.5
    for number in range(8):
        angle = 2 * np.pi * number / 8
        ramp_HW = np.uint8(128 + 150 * (np.cos(angle) * x + np.sin(angle) * y))
        frames_THWC = np.broadcast_to(ramp_HW[None, :, :, None], (12, 64, 64, 3))
        make_video(folder / f"{number}.mp4", np.ascontiguousarray(frames_THWC))
    (folder / "train.csv").write_text("".join(f"{number}.mp4\n" for number in range(8)))
    return folder


def test_the_loss_falls_on_what_can_be_learnt(ssl_cfg, ramps):
    cfg = ssl_cfg(
        f"DATA.PATH_TO_DATA_DIR {ramps} SOLVER.MAX_EPOCH 25 SOLVER.WARMUP_EPOCHS 0",
        "TRAIN.CHECKPOINT_PERIOD 100 SOLVER.BASE_BATCH_SIZE 0 SOLVER.BASE_LR 4e-3",
        "DATA.TRAIN_JITTER_SCALES_RELATIVE [1.0,1.0] DATA.TRAIN_JITTER_ASPECT_RELATIVE [1.0,1.0]",
    )
    launch(cfg)
    losses = [stats["loss"] for stats in json_stats(cfg, "train_epoch")]
    # Normalised pixels have variance 1, and the directions cancel: a guess that does not look at
    # the visible units stays at 1.
    assert losses[0] > 0.9
    assert losses[-1] < 0.5


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_has_weights_and_masks_of_one_never_stopped(
    ssl_cfg, tmp_path, num_workers, watch_masks
):
    # Everything random is on: masks, decoded units, crops, erasing, drop path.
    random = (
        "SOLVER.MAX_EPOCH 3 MODEL.DROP_PATH_RATE 0.3 AUG.ENABLE True AUG.NUM_SAMPLE 2 "
        "AUG.RE_PROB 0.5 MASK.STRATEGY random MASK.DECODER_KEEP_RATIO 0.5"
    )
    whole = ssl_cfg(random, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    never_stopped = list(watch_masks)
    watch_masks.clear()
    stopped = ssl_cfg(
        random, f"OUTPUT_DIR {tmp_path / 'stopped'} DATA_LOADER.NUM_WORKERS {num_workers}"
    )
    (tmp_path / "stopped" / "checkpoints").mkdir(parents=True)
    shutil.copy(checkpoint_path(whole.OUTPUT_DIR, 1), checkpoint_path(stopped.OUTPUT_DIR, 1))
    launch(stopped)
    assert "resumed after epoch 1" in (tmp_path / "stopped" / "stdout.log").read_text()
    assert len(never_stopped) == 6
    assert len(watch_masks) == 4
    for one, other in zip(never_stopped[2:], watch_masks, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    final = [weights_of(checkpoint_path(cfg.OUTPUT_DIR, 3)) for cfg in (whole, stopped)]
    assert same_weights(*final)
    assert not same_weights(final[0], weights_of(checkpoint_path(whole.OUTPUT_DIR, 2)))


@pytest.mark.parametrize("strategy", ["tube", "random", "frame"])
def test_a_run_masks_as_configured(ssl_cfg, watch_masks, strategy):
    launch(
        ssl_cfg(
            f"MASK.STRATEGY {strategy} MASK.RATIO 0.6 MASK.DECODER_KEEP_RATIO 0.4",
            "AUG.ENABLE True AUG.NUM_SAMPLE 2 AUG.RE_PROB 0.0 SOLVER.MAX_EPOCH 1",
            "DATA.NUM_FRAMES 8 DATA.SAMPLING_RATE 1",
        )
    )
    assert len(watch_masks) == 2
    num_visible = {"tube": 8, "random": 6, "frame": 8}[strategy]  # of 4 x 2 x 2 units
    for clips_BCTHW, visible_BU, decoded_BU in watch_masks:
        assert len(clips_BCTHW) == len(visible_BU) == 16  # 8 videos, 2 samples of each
        assert visible_BU.sum(1).tolist() == [num_visible] * 16
        assert decoded_BU.sum(1).tolist() == [round(0.4 * (16 - num_visible))] * 16
        assert not (visible_BU & decoded_BU).any()
        assert len(visible_BU.unique(dim=0)) > 1
        visible_BTS = visible_BU.reshape(16, 4, 4)
        assert (visible_BTS == visible_BTS[:, :1]).all() == (strategy == "tube")
        assert (visible_BTS == visible_BTS[..., :1]).all() == (strategy == "frame")
    assert not torch.equal(watch_masks[0][1], watch_masks[1][1])


def test_bfloat16_pretraining_keeps_float32_weights_and_a_finite_loss(ssl_cfg):
    cfg = ssl_cfg("TRAIN.MIXED_PRECISION True SOLVER.MAX_EPOCH 1")
    launch(cfg)
    state = weights_of(checkpoint_path(cfg.OUTPUT_DIR, 1))
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert all(0.5 < stats["loss"] < 2 for stats in json_stats(cfg, "train_iter"))


def test_accumulated_steps_and_layer_decay_go_with_pretraining(ssl_cfg):
    cfg = ssl_cfg("TRAIN.BATCH_SIZE 4 SOLVER.ACCUM_STEPS 3 SOLVER.LAYER_DECAY 0.7")
    launch(cfg)
    assert len(json_stats(cfg, "train_iter")) == 8


FINE_TUNE = "DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64 TEST.NUM_TEMPORAL_CLIPS 1"


def fine_tuned(small_cfg, start, tmp_path, *overrides):
    """Pretrain an epoch, fine-tune from it, and return (checkpoint before, after, log)."""
    cfg = small_cfg(
        f"{FINE_TUNE} SOLVER.MAX_EPOCH 2 OUTPUT_DIR {tmp_path / 'tuned'}",
        f"TRAIN.CHECKPOINT_FILE_PATH {start}",
        *overrides,
    )
    result = launch(cfg)
    assert result.num_evaluated == 8
    log = (tmp_path / "tuned" / "stdout.log").read_text()
    return weights_of(start), weights_of(checkpoint_path(cfg.OUTPUT_DIR, 2)), log


def test_fine_tuning_starts_from_pretraining_and_says_what_became_of_it(
    ssl_cfg, small_cfg, tmp_path
):
    pretraining = ssl_cfg("SOLVER.MAX_EPOCH 1")
    launch(pretraining)
    start = checkpoint_path(pretraining.OUTPUT_DIR, 1)
    # A rate so small that the weights stay as they started.
    still = "SOLVER.BASE_LR 1e-20 SOLVER.WEIGHT_DECAY 0.0"
    before, after, log = fine_tuned(small_cfg, start, tmp_path, still)
    assert "the autoencoder's decoder was dropped" in log
    assert "(q_pool 3, not q_pool 2); pooling has no weights, so there is nothing to do" in log
    assert "4 not in the file and freshly initialised (norm.weight" in log
    body = [n for n in after if n.startswith(("patch_embed", "pos_embed", "blocks."))]
    assert all(torch.equal(before[name], after[name]) for name in body)
    assert set(after) - set(body) == {
        *("norm.weight", "norm.bias", "head.projection.weight", "head.projection.bias")
    }


@pytest.mark.parametrize("method", ["adamw", "sgd"])
def test_a_linear_probe_of_pretraining_trains_norm_and_head_alone(
    ssl_cfg, small_cfg, tmp_path, method
):
    pretraining = ssl_cfg("SOLVER.MAX_EPOCH 1")
    launch(pretraining)
    start = checkpoint_path(pretraining.OUTPUT_DIR, 1)
    before, after, _ = fine_tuned(
        small_cfg,
        start,
        tmp_path,
        f"MODEL.LINEAR_PROBE True SOLVER.WEIGHT_DECAY 0.3 SOLVER.OPTIMIZING_METHOD {method}",
        "MODEL.DROP_PATH_RATE 0.5",
    )
    assert "random weights" not in (tmp_path / "tuned" / "stdout.log").read_text()
    for name, value in after.items():
        if not name.startswith(("norm", "head")):
            assert torch.equal(value, before[name]), name
    first = weights_of(checkpoint_path(str(tmp_path / "tuned"), 1))
    for name in ("norm.weight", "norm.bias", "head.projection.weight", "head.projection.bias"):
        assert not torch.equal(after[name], first[name]), name


def test_frozen_layers_keep_their_bits_and_the_run_resumes(small_cfg, tmp_path):
    frozen = "MODEL.FREEZE_LAYERS 3 MODEL.DROP_PATH_RATE 0.3 TEST.ENABLE False SOLVER.MAX_EPOCH 3"
    whole = small_cfg(frozen, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    one, last = (weights_of(checkpoint_path(whole.OUTPUT_DIR, epoch)) for epoch in (1, 3))
    fixed = ("patch_embed", "pos_embed", "blocks.0.", "blocks.1.")
    for name in one:
        assert torch.equal(one[name], last[name]) == name.startswith(fixed), name
    stopped = small_cfg(frozen, f"OUTPUT_DIR {tmp_path / 'stopped'}")
    (tmp_path / "stopped" / "checkpoints").mkdir(parents=True)
    shutil.copy(checkpoint_path(whole.OUTPUT_DIR, 1), checkpoint_path(stopped.OUTPUT_DIR, 1))
    launch(stopped)
    assert same_weights(last, weights_of(checkpoint_path(stopped.OUTPUT_DIR, 3)))
    told = [Path(cfg.OUTPUT_DIR, "stdout.log").read_text() for cfg in (whole, stopped)]
    assert [log.count("FREEZE_LAYERS keeps random weights as they are") for log in told] == [1, 0]
    with pytest.raises(UserError, match="MODEL.FREEZE_LAYERS than the one configured"):
        launch(small_cfg(f"{frozen} OUTPUT_DIR {tmp_path / 'whole'} SOLVER.MAX_EPOCH 4 "
                         "MODEL.FREEZE_LAYERS 2"))  # fmt: skip


def make_task(*, seed=0, strategy=masking.random, ratio=0.5, keep=1.0):
    torch.manual_seed(0)
    model = mae_hiera_micro_8x64(
        input_size=(4, 64, 64), embed_dim=16, decoder_embed_dim=16, decoder_depth=1
    )
    return Reconstruct(
        model,
        unit_grid=model.unit_grid,
        strategy=strategy,
        mask_ratio=ratio,
        decoder_keep_ratio=keep,
        seed=seed,
    )


def make_batch(num_clips=3, *, videos=None):
    clips_BCTHW = torch.randn(num_clips, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    indices_B = torch.arange(num_clips) if videos is None else torch.tensor(videos)
    return Batch(clips_BCTHW, torch.full((num_clips,), -1), indices_B, ())


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_a_step_returns_the_autoencoders_loss_for_its_masks(watch_masks, keep):
    task, batch = make_task(keep=keep), make_batch()
    loss = task.step(batch, epoch=0, iteration=0)
    ((clips, visible, decoded),) = watch_masks
    assert torch.equal(clips, batch.clips_BCTHW)
    assert visible.sum(1).tolist() == [4] * 3
    assert decoded is None if keep == 1 else decoded.sum(1).tolist() == [2] * 3
    assert torch.equal(loss, task.model(clips, visible, decoded=decoded).loss)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in task.model.parameters())


def test_masks_are_drawn_from_seed_epoch_and_video_alone(watch_masks):
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 2, 3), (0, 3, 2)]
    for iteration, (seed, epoch, video) in enumerate(keys + keys[::-1]):
        task = make_task(seed=seed, keep=0.5)
        torch.manual_seed(len(watch_masks))  # PyTorch's own generator has no say
        with torch.no_grad():
            task.step(make_batch(6, videos=[video] * 6), epoch=epoch, iteration=iteration)
    first, again = watch_masks[: len(keys)], watch_masks[len(keys) :][::-1]
    for one in range(len(keys)):
        for part in (1, 2):
            assert torch.equal(first[one][part], again[one][part])
            assert not any(torch.equal(first[one][part], first[o][part]) for o in range(one))


def test_a_videos_masks_do_not_depend_on_its_company(watch_masks):
    task = make_task(keep=0.5)
    videos = [4, 4, 2, 2, 9, 9, 4, 4]  # two views of each; one came twice, for a bad one
    with torch.no_grad():
        for batch in (videos, videos[2:6], videos[:2]):
            task.step(make_batch(len(batch), videos=batch), epoch=1, iteration=len(batch))
    for part in (1, 2):
        whole, middle, start = (seen[part] for seen in watch_masks)
        assert torch.equal(whole[2:6], middle)
        assert torch.equal(whole[:2], start)
        assert torch.equal(whole[6:], start)
        assert len({tuple(row) for row in whole.tolist()}) > 3


def test_the_task_is_what_the_config_says(ssl_cfg, small_cfg):
    cfg = ssl_cfg("MASK.STRATEGY frame MASK.RATIO 0.3 MASK.DECODER_KEEP_RATIO 0.7 RNG_SEED 5")
    task = build_task(cfg, build_model(cfg))
    assert isinstance(task, Reconstruct)
    assert task.strategy is masking.frame
    assert (task.mask_ratio, task.decoder_keep_ratio, task.seed) == (0.3, 0.7, 5)
    assert isinstance(build_task(small_cfg(), build_model(small_cfg())), Classify)


def test_masks_that_hide_nothing_are_refused_before_anything_is_written(ssl_cfg):
    # 32 px are one mask unit across: a tube of it is all there is.
    cfg = ssl_cfg(
        "MASK.STRATEGY tube MASK.RATIO 0.5 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32"
    )
    with pytest.raises(UserError, match=r"MASK.RATIO must hide .*\(\d+, 1, 1\).*hides none"):
        launch(cfg)
    assert not Path(cfg.OUTPUT_DIR).exists()
