"""Build the parts of a training run from its config, and describe them in the log."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hiera_video.config import Config, iterations_per_epoch, views_per_video
from hiera_video.data.build import build_frame_cache, build_loader, read_class_names
from hiera_video.data.checks.fingerprint import describe_check, describe_records
from hiera_video.data.frame_cache import FrameCache
from hiera_video.data.health import BadVideos
from hiera_video.data.loader import BatchLoader
from hiera_video.data.records import VideoRecord
from hiera_video.engine.compiling import compile_for_training
from hiera_video.engine.ema import WeightAverage
from hiera_video.engine.guards import StepGuard
from hiera_video.engine.parallel import data_parallel
from hiera_video.engine.parallel.watchdog import Watchdog
from hiera_video.engine.resume import Learner, RunSaver, Start, start_run
from hiera_video.engine.run_log import RunLog
from hiera_video.engine.signals import StopSignals
from hiera_video.engine.tasks import Task, build_task
from hiera_video.engine.validations import Validations
from hiera_video.models.build import build_model
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


@dataclass(frozen=True, slots=True)
class TrainRun:
    """The parts of a training run; only `engine/train.py` sees them all."""

    cfg: Config
    device: torch.device
    log: RunLog
    learner: Learner
    wrapped: nn.Module  # the model, or what averages its gradients over processes
    task: Task
    lr_at: LrSchedule
    train_loader: BatchLoader
    val_loader: BatchLoader | None
    frame_cache: FrameCache | None
    class_names: list[str] | None
    bad_videos: BadVideos
    validations: Validations
    stop: StopSignals
    watchdog: Watchdog
    start: Start
    saver: RunSaver


def prepare(
    cfg: Config,
    records: dict[str, Sequence[VideoRecord]],
    device: torch.device,
    log: RunLog,
    lock: FolderLock | None,
) -> TrainRun:
    """Build the parts of a training run, and load the weights or checkpoint that it starts from."""
    torch.manual_seed(seed_for("weights", cfg.RNG_SEED))
    model = build_model(cfg).to(device)
    compile_for_training(model, cfg.MODEL.COMPILE)
    wrapped = data_parallel.wrap(cfg, model, device)
    learner = Learner(
        model,
        build_optimizer(cfg, model),
        WeightAverage(model, cfg.TRAIN.EMA_DECAY) if cfg.TRAIN.EMA_DECAY else None,
        StepGuard(cfg.TRAIN.MAX_BAD_STEPS, records["train"], log.warning),
    )
    num_train = len(records["train"])
    cache = build_frame_cache(cfg, num_train + len(records.get("val", ())))
    train_loader = build_loader(cfg, "train", records["train"], cache=cache)
    val_loader = None
    if "val" in records:
        val_loader = build_loader(cfg, "val", records["val"], cache=cache, first_in_cache=num_train)
    class_names = read_class_names(cfg, "train")
    validations = Validations(cfg.OUTPUT_DIR, log.warning)
    start = start_run(
        cfg, learner, num_iterations=len(train_loader), class_names=class_names, log=log
    )
    if not start.resumed:
        validations.forget()
    return TrainRun(
        cfg=cfg,
        device=device,
        log=log,
        learner=learner,
        wrapped=wrapped,
        task=build_task(cfg, model, wrapped),
        lr_at=build_lr_schedule(cfg, len(records["train"])),
        train_loader=train_loader,
        val_loader=val_loader,
        frame_cache=cache,
        class_names=class_names,
        bad_videos=BadVideos(cfg.DATA.MAX_BAD_FRACTION),
        validations=validations,
        stop=StopSignals(log.line),
        watchdog=Watchdog(cfg.DIST.WATCHDOG_SEC, log.warning),
        start=start,
        saver=RunSaver(
            cfg,
            learner,
            origin=start.origin,
            device=device,
            num_iterations=len(train_loader),
            class_names=class_names,
            lock=lock,
            warn=log.warning,
        ),
    )


def describe_data(cfg: Config, records: Sequence[VideoRecord]) -> list[str]:
    """Return lines about the train list, and about its last check by tools/check_data.py."""
    folder = cfg.DATA.PATH_TO_DATA_DIR
    checked = [os.path.join(cfg.OUTPUT_DIR, "data_check"), folder, f"{folder}/data_check"]
    return [
        *describe_records(records, cfg.MODEL.NUM_CLASSES),
        *describe_check(checked, "train", records),
    ]


def describe_cache(cache: FrameCache) -> str:
    """Return the line that says how many videos are kept decoded, after an epoch has read all."""
    used, size = (num_bytes / 2**30 for num_bytes in (cache.used_bytes, cache.num_bytes))
    said = (
        f"DATA_LOADER.CACHE keeps {cache.num_kept} of {cache.num_videos} videos decoded, in "
        f"{used:.2f} of {size:.2f} GiB."
    )
    if not cache.is_full:
        return said
    if not cache.num_kept:
        return f"{said} None fits: try more."
    needed = used / cache.num_kept * cache.num_videos
    return f"{said} The others do not fit: all need about {needed:.2f} GiB."


def describe(run: TrainRun, num_videos: int) -> str:
    """Return the line that says what the run is about to do."""
    solver, done = run.cfg.SOLVER, run.start.position.epoch
    if done >= solver.MAX_EPOCH:
        return f"nothing to train: {done} epochs are done, SOLVER.MAX_EPOCH is {solver.MAX_EPOCH}"
    millions = sum(p.numel() for p in run.learner.model.parameters()) / 1e6
    return (
        f"training {run.cfg.MODEL.MODEL_NAME} ({millions:.1f} M parameters) on "
        f"{num_videos} videos: epochs {done + 1} to {solver.MAX_EPOCH}, "
        f"{len(run.train_loader)} iterations each; "
        f"effective batch {effective_batch(run.cfg, num_videos)} clips "
        f"({batch_parts(run.cfg, num_videos)}), "
        f"peak learning rate {run.lr_at(solver.WARMUP_EPOCHS):.3g}, device {run.device}"
    )


def batch_parts(cfg: Config, num_videos: int) -> str:
    """Return the factors of the effective batch, to which the learning rate is scaled."""
    views, machines = views_per_video(cfg), dist.num_machines()
    videos = f"{cfg.TRAIN.BATCH_SIZE} videos a machine x {machines}"
    if num_videos < cfg.TRAIN.BATCH_SIZE * machines:
        videos = f"{num_videos} videos, all there are,"
    return (
        f"{videos} x {iterations_per_step(cfg, num_videos)} accumulated x {views} "
        f"view{'s' * (views > 1)} of each"
    )


def describe_smaller_steps(cfg: Config, num_videos: int) -> str:
    """Return a warning about steps with fewer clips than the config asks for; "" if none."""
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
