"""Training: epochs over the videos, with validation and checkpoints between them."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hiera_video.config import Config, to_yaml
from hiera_video.data.batch import Batch
from hiera_video.data.build import build_loader, read_class_names
from hiera_video.data.fingerprint import describe_check, describe_records
from hiera_video.data.health import BadVideos
from hiera_video.data.loader import BatchLoader
from hiera_video.data.records import VideoRecord
from hiera_video.engine.checkpoint import (
    changed_keys,
    last_checkpoint,
    resume,
    save_checkpoint,
    save_config,
)
from hiera_video.engine.evaluate import Evaluation, evaluate
from hiera_video.engine.logging import RunLog
from hiera_video.engine.meters import Mean, Stopwatch, clock
from hiera_video.engine.tasks import Task, build_task
from hiera_video.models.build import build_model
from hiera_video.models.weights import start_from_weights
from hiera_video.solver.build import build_lr_schedule, build_optimizer, effective_batch, set_lr
from hiera_video.utils.errors import UserError
from hiera_video.utils.seed import seed_for


@dataclass(frozen=True, slots=True)
class TrainRun:
    """What the loop works with; built once by `prepare`."""

    cfg: Config
    device: torch.device
    log: RunLog
    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    lr_at: Callable[[float], float]
    train_loader: BatchLoader
    val_loader: BatchLoader | None
    class_names: list[str] | None
    bad_videos: BadVideos


def train(
    cfg: Config, records: dict[str, Sequence[VideoRecord]], device: torch.device, log: RunLog
) -> Evaluation | None:
    """Train from fresh or given weights, or the run's last checkpoint, to SOLVER.MAX_EPOCH.

    Returns the last validation, if there was one.
    """
    run, result = prepare(cfg, records, device, log), None
    finished = start_weights(run)
    save_config(cfg)
    for line in describe_data(cfg, records["train"]):
        log.line(line)
    log.line(describe(run, num_videos=len(records["train"]), finished=finished))
    for epoch in range(finished, cfg.SOLVER.MAX_EPOCH):
        train_epoch(run, epoch)
        finished, last = epoch + 1, epoch + 1 == cfg.SOLVER.MAX_EPOCH
        if last or finished % cfg.TRAIN.CHECKPOINT_PERIOD == 0:
            save_checkpoint(
                cfg.OUTPUT_DIR,
                epoch=finished,
                model=run.model,
                optimizer=run.optimizer,
                config_yaml=to_yaml(cfg),
                class_names=run.class_names,
            )
        if run.val_loader and (last or finished % cfg.TRAIN.EVAL_PERIOD == 0):
            result = evaluate(cfg, run.model, run.val_loader, "val", device=device, log=log)
            log_validation(run, result, finished)
    return result


def prepare(
    cfg: Config, records: dict[str, Sequence[VideoRecord]], device: torch.device, log: RunLog
) -> TrainRun:
    """Build everything a training run needs, from the config."""
    torch.manual_seed(seed_for("weights", cfg.RNG_SEED))
    model = build_model(cfg).to(device)
    return TrainRun(
        cfg=cfg,
        device=device,
        log=log,
        model=model,
        task=build_task(cfg, model),
        optimizer=build_optimizer(cfg, model),
        lr_at=build_lr_schedule(cfg),
        train_loader=build_loader(cfg, "train", records["train"]),
        val_loader=build_loader(cfg, "val", records["val"]) if "val" in records else None,
        class_names=read_class_names(cfg, "train"),
        bad_videos=BadVideos(cfg.DATA.MAX_BAD_FRACTION),
    )


def start_weights(run: TrainRun) -> int:
    """Load the run's last checkpoint, or the weights to start from; return the finished epochs."""
    train_cfg = run.cfg.TRAIN
    last = last_checkpoint(run.cfg.OUTPUT_DIR) if train_cfg.AUTO_RESUME else None
    if last:
        finished, saved_yaml = resume(last, model=run.model, optimizer=run.optimizer)
        run.log.line(f"resumed after epoch {finished} from {last}")
        if changed := changed_keys(saved_yaml, run.cfg):
            run.log.line(f"changed since that checkpoint: {'; '.join(changed)}")
        return finished
    if train_cfg.CHECKPOINT_FILE_PATH:
        summary = start_from_weights(
            run.model,
            train_cfg.CHECKPOINT_FILE_PATH,
            key="TRAIN.CHECKPOINT_FILE_PATH",
            num_classes=run.cfg.MODEL.NUM_CLASSES if run.cfg.TASK == "classify" else None,
        )
        run.log.line(f"started from {train_cfg.CHECKPOINT_FILE_PATH}: {summary}")
    return 0


def describe_data(cfg: Config, records: Sequence[VideoRecord]) -> list[str]:
    """Return what can be said of the train list, and of its last check by tools/check_data.py."""
    folder = cfg.DATA.PATH_TO_DATA_DIR
    checked = [os.path.join(cfg.OUTPUT_DIR, "data_check"), folder, f"{folder}/data_check"]
    return [
        *describe_records(records, cfg.MODEL.NUM_CLASSES),
        *describe_check(checked, "train", records),
    ]


def describe(run: TrainRun, *, num_videos: int, finished: int) -> str:
    """Return the line that says what is about to run."""
    cfg = run.cfg
    if finished >= cfg.SOLVER.MAX_EPOCH:
        return (
            f"nothing to train: {finished} epochs are done, SOLVER.MAX_EPOCH is "
            f"{cfg.SOLVER.MAX_EPOCH}"
        )
    millions = sum(p.numel() for p in run.model.parameters()) / 1e6
    return (
        f"training {cfg.MODEL.MODEL_NAME} ({millions:.1f} M parameters) on {num_videos} videos: "
        f"epochs {finished + 1} to {cfg.SOLVER.MAX_EPOCH}, "
        f"{len(run.train_loader)} iterations each; "
        f"effective batch {effective_batch(cfg)} videos, "
        f"peak learning rate {run.lr_at(cfg.SOLVER.WARMUP_EPOCHS):.3g}, device {run.device}"
    )


def train_epoch(run: TrainRun, epoch: int) -> None:
    """Train one pass over the videos."""
    # Seeded by epoch, so that a resumed run draws the same drop paths as one that never stopped.
    torch.manual_seed(seed_for("epoch", run.cfg.RNG_SEED, epoch))
    run.model.train()
    run.optimizer.zero_grad(set_to_none=True)
    num_iterations, log = len(run.train_loader), EpochLog(run, epoch)
    for iteration, batch in enumerate(log.watch.waiting(run.train_loader.batches(epoch))):
        log.failures(batch)
        refuse_bad(run, batch)
        lr = run.lr_at(epoch + iteration / num_iterations)
        group_size, ends_group = accumulation(run.cfg.SOLVER.ACCUM_STEPS, iteration, num_iterations)
        with autocast(run.device, enabled=run.cfg.TRAIN.MIXED_PRECISION):
            loss = run.task.step(batch.to(run.device), epoch=epoch, iteration=iteration)
        refuse_non_finite(value := loss.item(), log.label, iteration)
        (loss / group_size).backward()
        grad_norm = optimizer_step(run, lr) if ends_group else None
        log.iteration(iteration, loss=value, lr=lr, grad_norm=grad_norm, num_clips=len(batch))
    log.end()
    run.bad_videos.check(at_end=True)


def accumulation(accum_steps: int, iteration: int, num_iterations: int) -> tuple[int, bool]:
    """Return how many iterations this one's optimizer step sums, and whether it ends here.

    The last step of an epoch takes what is left, so that no gradient leaks into the next one.
    """
    start = iteration // accum_steps * accum_steps
    size = min(accum_steps, num_iterations - start)
    return size, iteration == start + size - 1


def refuse_bad(run: TrainRun, batch: Batch) -> None:
    """Raise a UserError if too many videos are bad, or all of the batch, replacements included."""
    run.bad_videos.check()
    if len(batch) == 0:
        raise UserError(
            "no video of a training batch could be decoded, "
            f"the last: {batch.failures[-1].reason} Check DATA.PATH_TO_DATA_DIR "
            "and DATA.PATH_PREFIX."
        )


def refuse_non_finite(loss: float, epoch: str, iteration: int) -> None:
    """Raise a UserError if the loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} in epoch {epoch}, iteration {iteration + 1}. Try a lower "
            "SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCHS or SOLVER.CLIP_GRAD_L2NORM 1.0."
        )


def optimizer_step(run: TrainRun, lr: float) -> float:
    """Clip the gradient (0: only measure it), step, clear it; return its norm before clipping."""
    limit = run.cfg.SOLVER.CLIP_GRAD_L2NORM or math.inf
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), limit)
    set_lr(run.optimizer, lr)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return norm.item()


def autocast(device: torch.device, *, enabled: bool) -> torch.autocast:
    """Return the bfloat16 autocast context of the device."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def log_validation(run: TrainRun, result: Evaluation, finished: int) -> None:
    """Log what a validation gave after `finished` epochs."""
    num_epochs = run.cfg.SOLVER.MAX_EPOCH
    run.log.line(f"epoch {finished}/{num_epochs} validation: {result.summary()}")
    run.log.stats("val_epoch", epoch=f"{finished}/{num_epochs}", **result.figures())
    run.log.scalars(finished, val__top1_acc=100 * result.top1, val__top5_acc=100 * result.top5)


class EpochLog:
    """The lines, scalars and progress bar of one training epoch."""

    def __init__(self, run: TrainRun, epoch: int) -> None:
        self.run = run
        self.epoch = epoch
        self.num_iterations = len(run.train_loader)
        self.label = f"{epoch + 1}/{run.cfg.SOLVER.MAX_EPOCH}"
        self.loss, self.clips, self.num_failures = Mean(), 0, 0
        self.watch = Stopwatch()
        self.bar = run.log.progress(self.num_iterations, f"epoch {self.label}")

    def failures(self, batch: Batch) -> None:
        """Name the videos that did not decode and were replaced, each once in a run."""
        self.num_failures += len(batch.failures)
        for reason in self.run.bad_videos.add(batch):
            self.run.log.warning(f"{reason} Another video took its place.")

    def iteration(
        self, iteration: int, *, loss: float, lr: float, grad_norm: float | None, num_clips: int
    ) -> None:
        """Take one iteration's figures; log them every LOG_PERIOD."""
        self.loss.add(loss, num_clips)
        self.clips += num_clips
        self.bar.set_postfix_str(f"loss {loss:.3f}, data wait {self.watch.wait_share:.0%}")
        self.bar.update()
        if (iteration + 1) % self.run.cfg.LOG_PERIOD:
            return
        sec_per_iter = self.watch.elapsed_sec / (iteration + 1)
        epochs_left = self.run.cfg.SOLVER.MAX_EPOCH - self.epoch
        eta = clock(sec_per_iter * (epochs_left * self.num_iterations - iteration - 1))
        where = f"{iteration + 1}/{self.num_iterations}"
        if self.bar.disable:
            self.run.log.line(
                f"epoch {self.label} iteration {where} loss {loss:.4f} lr {lr:.3g} "
                f"data wait {self.watch.wait_share:.0%} eta {eta}"
            )
        self.run.log.stats(
            "train_iter",
            epoch=self.label,
            iter=where,
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            sec_per_iter=sec_per_iter,
            clips_per_sec=self.clips / self.watch.elapsed_sec,
            data_wait_share=self.watch.wait_share,
            gpu_memory_gib=gpu_memory_gib(self.run.device),
            eta=eta,
        )
        step = self.epoch * self.num_iterations + iteration + 1
        self.run.log.scalars(step, train__loss=loss, train__lr=lr)

    def end(self) -> None:
        """Close the bar and log the epoch."""
        self.bar.close()
        self.run.log.line(
            f"epoch {self.label} done: loss {self.loss.value:.4f}, "
            f"{self.clips / self.watch.elapsed_sec:.1f} clips/s, "
            f"data wait {self.watch.wait_share:.0%}, {clock(self.watch.elapsed_sec)}"
        )
        self.run.log.stats(
            "train_epoch",
            epoch=self.label,
            loss=self.loss.value,
            epoch_sec=self.watch.elapsed_sec,
            clips_per_sec=self.clips / self.watch.elapsed_sec,
            data_wait_share=self.watch.wait_share,
            bad_videos=self.num_failures,
            gpu_memory_gib=gpu_memory_gib(self.run.device),
        )


def gpu_memory_gib(device: torch.device) -> float:
    """Return the most GPU memory that was in use so far, in GiB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
