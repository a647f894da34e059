import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejson
import torch
import torch.nn.functional as F
import webdataset
from torch.nn.modules.module import register_module_forward_hook

from hiera_video.checkpoints.run_folder import checkpoint_path, last_checkpoint
from hiera_video.data.build import build_loader, read_records
from hiera_video.engine.checkpoint import save_checkpoint
from hiera_video.engine.launch import launch
from hiera_video.engine.train import accumulation
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.utils import io
from hiera_video.utils.errors import UserError


def weights_of(path):
    return torch.load(path, weights_only=True)["model_state"]


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def json_stats(output_dir, kind):
    with open(f"{output_dir}/stdout.log", encoding="utf-8") as log:
        found = [
            simplejson.loads(line.split("json_stats: ")[1]) for line in log if "json_s" in line
        ]
    return [stats for stats in found if stats["_type"] == kind]


def test_a_run_leaves_checkpoints_logs_scores_and_its_config(small_cfg):
    cfg = small_cfg("TENSORBOARD.ENABLE True")
    result = launch(cfg)
    out = cfg.OUTPUT_DIR
    assert result.num_evaluated == result.num_videos == 8
    assert result.views == "2x3"
    content = torch.load(checkpoint_path(out, 2), weights_only=True)
    assert content.keys() == {
        *("epoch", "model_state", "optimizer_state", "cfg", "scaler_state", "class_names"),
        *("iteration", "num_iterations", "rng_states", "bad_steps_in_a_row", "origin"),
    }
    assert content["epoch"] == 2
    assert len(content["class_names"]) == 8
    assert "MAX_EPOCH: 2" in content["cfg"]
    assert io.exists(f"{out}/config.yaml")
    assert len(json_stats(out, "train_iter")) == 4
    assert len(json_stats(out, "train_epoch")) == len(json_stats(out, "val_epoch")) == 2
    assert 0 <= json_stats(out, "train_epoch")[0]["data_wait_share"] <= 1
    assert io.is_dir(f"{out}/tensorboard")
    with np.load(f"{out}/test_scores.npz", allow_pickle=False) as scores:
        assert scores["scores"].shape == (8, 8)
        assert np.allclose(scores["scores"].sum(1), 1, atol=1e-5)
        assert all(str(path).endswith(".mp4") for path in scores["paths"])
        top1 = (scores["scores"].argmax(1) == scores["labels"]).mean()
    with io.open_file(f"{out}/test_results.json") as file:
        results = simplejson.load(file)
    assert results["top1_acc"] == pytest.approx(100 * top1)
    assert results["top1_acc_by_views"].keys() == {"1x1", "2x1", "1x3", "2x3"}
    assert results["top1_acc_by_views"]["2x3"] == results["top1_acc"]
    assert io.exists(f"{out}/test_confusion.png")


def test_one_batch_is_learnt_by_heart(small_cfg):
    cfg = small_cfg(
        "TRAIN.BATCH_SIZE 16 SOLVER.MAX_EPOCH 45 TRAIN.EVAL_PERIOD 100 TRAIN.CHECKPOINT_PERIOD 100",
        "DATA.TRAIN_JITTER_SCALES_RELATIVE [1.0,1.0] DATA.TRAIN_JITTER_ASPECT_RELATIVE [1.0,1.0]",
        "DATA.SAMPLING uniform AUG.ENABLE False SOLVER.WEIGHT_DECAY 0.0 TEST.ENABLE False",
    )
    launch(cfg)
    losses = [stats["loss"] for stats in json_stats(cfg.OUTPUT_DIR, "train_epoch")]
    assert losses[0] > 1.5
    assert losses[-1] < 0.2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_has_the_weights_of_one_never_stopped(small_cfg, tmp_path, num_workers):
    # Everything random is on: crops, RandAugment, erasing, mixup, drop path, dropout.
    random = (
        "SOLVER.MAX_EPOCH 3 MIXUP.ENABLE True MODEL.DROP_PATH_RATE 0.3 MODEL.DROPOUT_RATE 0.3 "
        "AUG.AA_TYPE rand-m7-n4-mstd0.5-inc1 AUG.RE_PROB 0.5 TEST.ENABLE False"
    )
    whole = small_cfg(random, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    stopped = small_cfg(
        random, f"OUTPUT_DIR {tmp_path / 'stopped'} DATA_LOADER.NUM_WORKERS {num_workers}"
    )
    (tmp_path / "stopped" / "checkpoints").mkdir(parents=True)
    shutil.copy(checkpoint_path(whole.OUTPUT_DIR, 1), checkpoint_path(stopped.OUTPUT_DIR, 1))
    launch(stopped)
    log = (tmp_path / "stopped" / "stdout.log").read_text()
    assert "resumed after epoch 1" in log
    assert "epoch 1/3 done" not in log
    final = [weights_of(checkpoint_path(cfg.OUTPUT_DIR, 3)) for cfg in (whole, stopped)]
    assert same_weights(*final)
    assert not same_weights(final[0], weights_of(checkpoint_path(whole.OUTPUT_DIR, 2)))


def test_a_finished_run_is_not_trained_again(small_cfg):
    cfg = small_cfg("TEST.ENABLE False")
    launch(cfg)
    before = weights_of(checkpoint_path(cfg.OUTPUT_DIR, 2))
    launch(cfg)
    assert len(json_stats(cfg.OUTPUT_DIR, "train_epoch")) == 2
    assert same_weights(before, weights_of(last_checkpoint(cfg.OUTPUT_DIR)))


def test_accumulated_steps_equal_the_large_batch(small_cfg, tmp_path):
    plain = "AUG.ENABLE False TEST.ENABLE False SOLVER.MAX_EPOCH 1 SOLVER.WARMUP_EPOCHS 0 "
    plain += "SOLVER.OPTIMIZING_METHOD sgd SOLVER.MOMENTUM 0.0 SOLVER.WEIGHT_DECAY 0.0 "
    # The same rate in every iteration, and every gradient as long as it is.
    plain += "SOLVER.BASE_BATCH_SIZE 0 SOLVER.BASE_LR 0.5 SOLVER.COSINE_END_LR 0.5 "
    plain += f"SOLVER.CLIP_GRAD_L2NORM 0.0 TRAIN.CHECKPOINT_FILE_PATH {tmp_path / 'start.pyth'}"
    torch.manual_seed(0)
    model = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({"model_state": start}, tmp_path / "start.pyth")
    large = small_cfg(plain, f"TRAIN.BATCH_SIZE 16 OUTPUT_DIR {tmp_path / 'large'}")
    small = small_cfg(
        plain, f"TRAIN.BATCH_SIZE 4 SOLVER.ACCUM_STEPS 4 OUTPUT_DIR {tmp_path / 'small'}"
    )
    launch(large)
    launch(small)
    one, other = (weights_of(checkpoint_path(cfg.OUTPUT_DIR, 1)) for cfg in (large, small))

    # By hand: one step down the gradient of all 16 videos, and of the last iteration's alone.
    cpu = torch.device("cpu")
    batches = list(build_loader(small, "train", read_records(small, "train")).batches(0))
    losses = [
        F.cross_entropy(model(batch.to(cpu).clips_BCTHW), batch.labels_B) for batch in batches
    ]
    assert len(losses) == 4
    names, parameters = zip(*model.named_parameters(), strict=True)

    def after_a_step(loss):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        return {n: start[n] - 0.5 * g for n, g in zip(names, gradients, strict=True)}

    def distance(one, other):
        return torch.cat([(one[name] - other[name]).flatten() for name in names]).norm().item()

    expected = after_a_step(sum(losses) / 4)
    step = distance(expected, start)
    assert step > 0.1
    assert distance(one, expected) < 1e-3 * step
    assert distance(other, expected) < 1e-3 * step
    # A step that had dropped the first three iterations would be seen.
    assert distance(after_a_step(losses[-1] / 4), expected) > 0.3 * step
    assert distance(after_a_step(losses[-1]), expected) > 0.3 * step


def test_the_last_step_of_an_epoch_takes_what_is_left():
    assert [accumulation(4, i, 10) for i in range(10)] == [
        *((4, False),) * 3,
        (4, True),
        *((4, False),) * 3,
        (4, True),
        (2, False),
        (2, True),
    ]


CONSTANT_RATE = (
    "SOLVER.BASE_LR 0.064 SOLVER.COSINE_END_LR 0.064 SOLVER.WARMUP_EPOCHS 0 AUG.ENABLE False "
    "SOLVER.BASE_BATCH_SIZE 64 SOLVER.MAX_EPOCH 1 TEST.ENABLE False"
)


@pytest.mark.parametrize(
    ("keys", "rates", "said"),
    [
        (
            "TRAIN.BATCH_SIZE 512",
            [0.016],
            ["16 videos, all there are, x 1", "steps of 512 clips, and an epoch of 16 videos has"],
        ),
        ("TRAIN.BATCH_SIZE 4 SOLVER.ACCUM_STEPS 64", [0.016] * 4, ["x 4 accumulated"]),
        (
            "TRAIN.BATCH_SIZE 4 SOLVER.ACCUM_STEPS 3",
            [0.012, 0.012, 0.012, 0.004],
            ["the last step of each epoch holds 4 of 12 clips; the learning rate is scaled"],
        ),
        ("TRAIN.BATCH_SIZE 512 SOLVER.BASE_BATCH_SIZE 0", [0.064], ["has 16 for one\n"]),
    ],
)
def test_the_learning_rate_is_that_of_the_clips_a_step_holds(small_cfg, keys, rates, said):
    cfg = small_cfg(CONSTANT_RATE, keys)
    launch(cfg)
    assert [stats["lr"] for stats in json_stats(cfg.OUTPUT_DIR, "train_iter")] == pytest.approx(
        rates
    )
    log = Path(cfg.OUTPUT_DIR, "stdout.log").read_text(encoding="utf-8")
    for words in said:
        assert words in log


def test_weights_to_start_from_and_another_number_of_classes(small_cfg, tmp_path):
    start = str(tmp_path / "start.pyth")
    nine_classes = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=9)
    torch.save({"model_state": nine_classes.state_dict()}, start)
    second = small_cfg(
        f"TRAIN.CHECKPOINT_FILE_PATH {start} TEST.ENABLE False",
        f"SOLVER.BASE_LR 1e-20 SOLVER.WEIGHT_DECAY 0.0 OUTPUT_DIR {tmp_path / 'second'}",
    )
    launch(second)
    log = (tmp_path / "second" / "stdout.log").read_text()
    assert re.search("2 re-initialised for another number of classes .head.projection.weight", log)
    one, other = weights_of(start), weights_of(checkpoint_path(second.OUTPUT_DIR, 2))
    assert torch.equal(one["blocks.2.attn.qkv.weight"], other["blocks.2.attn.qkv.weight"])
    assert other["head.projection.weight"].shape[0] == 8


def test_bfloat16_training_keeps_float32_weights(small_cfg):
    outputs = {torch.nn.Linear: set(), torch.nn.Conv3d: set()}

    def record(module, _, output):
        if type(module) in outputs and torch.is_grad_enabled():
            outputs[type(module)].add(output.dtype)

    cfg = small_cfg("TRAIN.MIXED_PRECISION True TEST.ENABLE False SOLVER.MAX_EPOCH 1")
    with register_module_forward_hook(record):
        launch(cfg)
    assert outputs == {torch.nn.Linear: {torch.bfloat16}, torch.nn.Conv3d: {torch.bfloat16}}
    content = torch.load(checkpoint_path(cfg.OUTPUT_DIR, 1), weights_only=True)
    assert {value.dtype for value in content["model_state"].values()} == {torch.float32}
    moments = [state["exp_avg"] for state in content["optimizer_state"]["state"].values()]
    assert {value.dtype for value in moments} == {torch.float32}


def test_a_baseline_trains_in_the_same_engine(small_cfg):
    cfg = small_cfg("MODEL.ARCH baselines MODEL.MODEL_NAME x3d_s SOLVER.MAX_EPOCH 1")
    assert launch(cfg).num_evaluated == 8


def test_a_loss_that_is_not_finite_stops_the_run(small_cfg):
    cfg = small_cfg(
        "SOLVER.BASE_LR 1e30 SOLVER.CLIP_GRAD_L2NORM 0.0 SOLVER.WARMUP_EPOCHS 0",
        "TRAIN.MAX_BAD_STEPS 1",
    )
    with pytest.raises(UserError, match=r"the loss became (nan|inf) in epoch 1.*BASE_LR"):
        launch(cfg)


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(tmp_path, monkeypatch):
    model = hiera_micro_8x64(num_classes=2)
    optimizer = torch.optim.AdamW(model.parameters())
    settings = {"model": model, "optimizer": optimizer, "config_yaml": "", "class_names": None}
    first = save_checkpoint(str(tmp_path), epoch=1, **settings)
    before = Path(first).read_bytes()

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io.os, "fsync", disk_full)
    with pytest.raises(UserError, match="could not be written.*No space left.*intact"):
        save_checkpoint(str(tmp_path), epoch=2, **settings)
    assert last_checkpoint(str(tmp_path)) == first
    assert Path(first).read_bytes() == before
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_a_disk_that_fills_up_while_saving_is_told_in_the_systems_words(tmp_path, monkeypatch):
    def save_to_a_full_disk(content, file):
        real_save(content, FullDisk(file))

    real_save = torch.save
    monkeypatch.setattr(torch, "save", save_to_a_full_disk)
    model = hiera_micro_8x64(num_classes=2)
    with pytest.raises(UserError, match="No space left on device"):
        save_checkpoint(
            str(tmp_path),
            epoch=1,
            model=model,
            optimizer=torch.optim.AdamW(model.parameters()),
            config_yaml="",
            class_names=None,
        )
    assert list((tmp_path / "checkpoints").iterdir()) == []


class FullDisk:
    """A file on a disk with room for a megabyte."""

    def __init__(self, file):
        self.file, self.room = file, 2**20

    def write(self, data):
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)

    def flush(self):
        self.file.flush()


def trained(small_cfg, *overrides):
    """Train two epochs; return the config's OUTPUT_DIR and the text of its config.yaml."""
    cfg = small_cfg("TEST.ENABLE False", *overrides)
    launch(cfg)
    return Path(cfg.OUTPUT_DIR), (Path(cfg.OUTPUT_DIR) / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DATA.NUM_FRAMES 8", "pos_embed_temporal is .* there and .* here"),
        ("SOLVER.OPTIMIZING_METHOD sgd", "another SOLVER.OPTIMIZING_METHOD"),
        (
            "SOLVER.LAYER_DECAY 0.5",
            "another SOLVER.OPTIMIZING_METHOD, SOLVER.LAYER_DECAY or MODEL.F",
        ),
    ],
)
def test_a_resume_that_does_not_fit_is_refused_and_the_old_config_stays(small_cfg, change, words):
    folder, config = trained(small_cfg)
    before = weights_of(checkpoint_path(str(folder), 2))
    with pytest.raises(UserError, match=words):
        launch(small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 3", change))
    assert (folder / "config.yaml").read_text() == config
    assert same_weights(before, weights_of(last_checkpoint(str(folder))))


def test_a_resumed_run_takes_weight_decay_and_betas_from_its_config(small_cfg):
    folder, _ = trained(small_cfg)
    launch(
        small_cfg(
            "TEST.ENABLE False SOLVER.MAX_EPOCH 3 SOLVER.WEIGHT_DECAY 0.5 SOLVER.BETAS [0.8,0.9]"
        )
    )
    assert "SOLVER.WEIGHT_DECAY: 0.05 -> 0.5" in (folder / "stdout.log").read_text()
    state = torch.load(checkpoint_path(str(folder), 3), weights_only=True)["optimizer_state"]
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.0, 0.5}
    assert {tuple(group["betas"]) for group in state["param_groups"]} == {(0.8, 0.9)}


def test_a_resumed_run_may_stop_decaying_its_weights(small_cfg):
    folder, _ = trained(small_cfg)
    launch(small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 3 SOLVER.WEIGHT_DECAY 0.0"))
    state = torch.load(checkpoint_path(str(folder), 3), weights_only=True)["optimizer_state"]
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.0}


def test_a_checkpoint_of_another_release_of_pytorch_goes_on(small_cfg):
    folder, _ = trained(small_cfg)
    path = checkpoint_path(str(folder), 2)
    content = torch.load(path, weights_only=True)
    for group in content["optimizer_state"]["param_groups"]:
        group.pop("decoupled_weight_decay", None)  # 2.6 has none
        group["of_a_release_to_come"] = 1
    torch.save(content, path)
    launch(small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 3"))
    assert "resumed after epoch 2" in (folder / "stdout.log").read_text()


def test_a_run_that_starts_anew_does_not_mix_with_an_earlier_one(small_cfg):
    folder, _ = trained(small_cfg)
    with pytest.raises(UserError, match="OUTPUT_DIR must hold no checkpoints"):
        launch(small_cfg("TRAIN.AUTO_RESUME False"))
    assert len(list((folder / "checkpoints").glob("checkpoint_epoch_*"))) == 2


def test_epochs_that_are_done_already_are_said(small_cfg):
    folder, _ = trained(small_cfg)
    launch(small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 1"))
    log = (folder / "stdout.log").read_text()
    assert "nothing to train: 2 epochs are done, SOLVER.MAX_EPOCH is 1" in log


def test_a_run_from_shards_has_the_weights_of_one_from_the_files(small_cfg, tiny_set, tmp_path):
    plain = "SOLVER.MAX_EPOCH 1 TEST.ENABLE False DATA_LOADER.NUM_WORKERS 0"
    files = small_cfg(plain, f"OUTPUT_DIR {tmp_path / 'files'}")
    packed = small_cfg(
        plain,
        f"OUTPUT_DIR {tmp_path / 'packed'} DATA.PATH_TO_DATA_DIR {tmp_path / 'shards'}",
        "TRAIN.DATASET shards TEST.DATASET shards",
    )
    (tmp_path / "shards").mkdir()
    for split in ("train", "val"):
        with webdataset.TarWriter(f"{tmp_path}/shards/{split}-000000.tar") as tar:
            for record in read_records(files, split):
                with open(record.path, "rb") as file:
                    sample = {"mp4": file.read(), "cls": record.label}
                tar.write({"__key__": str(record.video_index), **sample})
    launch(files)
    launch(packed)
    one, other = (weights_of(checkpoint_path(cfg.OUTPUT_DIR, 1)) for cfg in (files, packed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
