"""What a training run works with, built once from the config, and what it says at its start."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from hiera_video.checkpoints.run_folder import Position
from hiera_video.config import Config, iterations_per_epoch, views_per_video
from hiera_video.data.build import build_loader, read_class_names
from hiera_video.data.checks.fingerprint import describe_check, describe_records
from hiera_video.data.health import BadVideos
from hiera_video.data.loader import BatchLoader
from hiera_video.data.records import VideoRecord
from hiera_video.engine.compiling import compile_for_training
from hiera_video.engine.ema import WeightAverage
from hiera_video.engine.guards import StepGuard
from hiera_video.engine.parallel import data_parallel
from hiera_video.engine.parallel.fsdp import is_sharded
from hiera_video.engine.parallel.watchdog import Watchdog
from hiera_video.engine.run_log import RunLog
from hiera_video.engine.signals import StopSignals
from hiera_video.engine.tasks import Task, build_task
from hiera_video.engine.validations import Validations
from hiera_video.models.build import build_model
from hiera_video.models.origin import Origin
from hiera_video.solver.build import (
    LrSchedule,
    build_lr_schedule,
    build_optimizer,
    clips_per_iteration,
    effective_batch,
    iterations_per_step,
)
from hiera_video.utils import dist
from hiera_video.utils.folder_lock import FolderLock
from hiera_video.utils.seed import seed_for

if TYPE_CHECKING:
    from hiera_video.engine.checkpoint_distributed import ShardedSaves


@dataclass(frozen=True, slots=True)
class TrainRun:
    """What the loop works with; built once by `prepare`."""

    cfg: Config
    device: torch.device
    log: RunLog
    model: nn.Module
    wrapped: nn.Module  # the model, or what shares its gradients out among processes
    task: Task
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    lr_at: LrSchedule
    train_records: Sequence[VideoRecord]
    train_loader: BatchLoader
    val_loader: BatchLoader | None
    class_names: list[str] | None
    bad_videos: BadVideos
    guard: StepGuard
    validations: Validations
    stop: StopSignals
    watchdog: Watchdog
    saves: "ShardedSaves | None"  # of a model that is cut up
    lock: FolderLock | None  # on OUTPUT_DIR, in rank 0
    origin: Origin  # of the weights; known once the run has started


def prepare(
    cfg: Config,
    records: dict[str, Sequence[VideoRecord]],
    device: torch.device,
    log: RunLog,
    lock: FolderLock | None,
) -> TrainRun:
    """Build everything a training run needs, from the config."""
    torch.manual_seed(seed_for("weights", cfg.RNG_SEED))
    model = build_model(cfg).to(device)
    compile_for_training(model, cfg.MODEL.COMPILE)
    wrapped = data_parallel.wrap(cfg, model, device)
    return TrainRun(
        cfg=cfg,
        device=device,
        log=log,
        model=model,
        wrapped=wrapped,
        task=build_task(cfg, model, wrapped),
        optimizer=build_optimizer(cfg, model),
        average=WeightAverage(model, cfg.TRAIN.EMA_DECAY) if cfg.TRAIN.EMA_DECAY else None,
        lr_at=build_lr_schedule(cfg, len(records["train"])),
        train_records=records["train"],
        train_loader=build_loader(cfg, "train", records["train"]),
        val_loader=build_loader(cfg, "val", records["val"]) if "val" in records else None,
        class_names=read_class_names(cfg, "train"),
        bad_videos=BadVideos(cfg.DATA.MAX_BAD_FRACTION),
        guard=StepGuard(cfg.TRAIN.MAX_BAD_STEPS, records["train"], log.warning),
        validations=Validations(cfg.OUTPUT_DIR, log.warning),
        stop=StopSignals(log.line),
        watchdog=Watchdog(cfg.DIST.WATCHDOG_SEC, log.warning),
        saves=sharded_saves(cfg, log) if is_sharded(model) else None,
        lock=lock,
        origin=Origin("unknown"),
    )


def sharded_saves(cfg: Config, log: RunLog) -> "ShardedSaves":
    """Return what writes the checkpoints of a model that is cut up."""
    # Seconds to import, which other runs need not wait for.
    from hiera_video.engine.checkpoint_distributed import ShardedSaves

    return ShardedSaves(
        cfg.OUTPUT_DIR,
        keep=cfg.TRAIN.KEEP_CHECKPOINTS,
        timeout_sec=cfg.DIST.TIMEOUT_SEC,
        warn=log.warning,
    )


def describe_data(cfg: Config, records: Sequence[VideoRecord]) -> list[str]:
    """Return what can be said of the train list, and of its last check by tools/check_data.py."""
    folder = cfg.DATA.PATH_TO_DATA_DIR
    checked = [os.path.join(cfg.OUTPUT_DIR, "data_check"), folder, f"{folder}/data_check"]
    return [
        *describe_records(records, cfg.MODEL.NUM_CLASSES),
        *describe_check(checked, "train", records),
    ]


def describe(run: TrainRun, start: Position) -> str:
    """Return the line that says what is about to run."""
    cfg = run.cfg
    if start.epoch >= cfg.SOLVER.MAX_EPOCH:
        return (
            f"nothing to train: {start.epoch} epochs are done, SOLVER.MAX_EPOCH is "
            f"{cfg.SOLVER.MAX_EPOCH}"
        )
    millions = sum(p.numel() for p in run.model.parameters()) / 1e6
    return (
        f"training {cfg.MODEL.MODEL_NAME} ({millions:.1f} M parameters) on "
        f"{len(run.train_records)} videos: epochs {start.epoch + 1} to {cfg.SOLVER.MAX_EPOCH}, "
        f"{len(run.train_loader)} iterations each; "
        f"effective batch {effective_batch(cfg, len(run.train_records))} clips "
        f"({batch_parts(cfg, len(run.train_records))}), "
        f"peak learning rate {run.lr_at(cfg.SOLVER.WARMUP_EPOCHS):.3g}, device {run.device}"
    )


def batch_parts(cfg: Config, num_videos: int) -> str:
    """Return what the effective batch, to which the learning rate is scaled, is the product of."""
    views, machines = views_per_video(cfg), dist.num_machines()
    videos = f"{cfg.TRAIN.BATCH_SIZE} videos a machine x {machines}"
    if num_videos < cfg.TRAIN.BATCH_SIZE * machines:
        videos = f"{num_videos} videos, all there are,"
    return (
        f"{videos} x {iterations_per_step(cfg, num_videos)} accumulated x {views} "
        f"view{'s' * (views > 1)} of each"
    )


def describe_smaller_steps(cfg: Config, num_videos: int) -> str:
    """Say which steps hold fewer clips than the config asks for, and at what rate; "": none."""
    asked, full = effective_batch(cfg), effective_batch(cfg, num_videos)
    batch = cfg.TRAIN.BATCH_SIZE * dist.num_machines()
    left = iterations_per_epoch(num_videos, batch) % iterations_per_step(cfg, num_videos)
    last = left * clips_per_iteration(cfg, num_videos)
    parts = []
    if full < asked:
        parts.append(
            f"TRAIN.BATCH_SIZE and SOLVER.ACCUM_STEPS ask for steps of {asked} clips, and an epoch "
            f"of {num_videos} videos has {full} for one"
        )
    if last:
        parts.append(f"the last step of each epoch holds {last} of {full} clips")
    if parts and cfg.SOLVER.BASE_BATCH_SIZE:
        parts.append("the learning rate is scaled to the clips that each step holds")
    return "; ".join(parts)
