"""Training: epochs over the videos, with validation and checkpoints between them."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import NoReturn

import torch
from torch import nn

from hiera_video.checkpoints.run_folder import Position, best_path
from hiera_video.config import Config, to_yaml
from hiera_video.data.health import BadVideos
from hiera_video.data.loader import Batch
from hiera_video.data.records import VideoRecord
from hiera_video.engine.checkpoint import save_config, write_checkpoint
from hiera_video.engine.epoch_log import EpochLog
from hiera_video.engine.evaluate import Evaluation, Interrupted, evaluate
from hiera_video.engine.parallel.data_parallel import exchange, gradients
from hiera_video.engine.parallel.fsdp import total_norm, whole
from hiera_video.engine.parallel.watchdog import BACKWARD
from hiera_video.engine.resume import seed_epoch
from hiera_video.engine.run_log import RunLog
from hiera_video.engine.train_run import (
    TrainRun,
    describe,
    describe_cache,
    describe_data,
    describe_smaller_steps,
    prepare,
)
from hiera_video.models import origin
from hiera_video.models.parts.scores import autocast
from hiera_video.solver.build import set_lr
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError
from hiera_video.utils.folder_lock import FolderLock


def train(
    cfg: Config,
    records: dict[str, Sequence[VideoRecord]],
    device: torch.device,
    log: RunLog,
    lock: FolderLock | None,
) -> Evaluation | None:
    """Train to SOLVER.MAX_EPOCH, from fresh or given weights or the run's last checkpoint.

    `lock` is that on OUTPUT_DIR, in rank 0. Returns the last validation, if there was one.
    """
    run, result = prepare(cfg, records, device, log, lock), None
    save_config(cfg, log.warning)
    for line in describe_data(cfg, records["train"]):
        log.line(line)
    log.line(describe(run, len(records["train"])))
    if smaller := describe_smaller_steps(cfg, len(records["train"])):
        log.warning(smaller)
    with run.watchdog, run.stop, run.saver:
        if missed_validation(run):
            result = validate(run, run.start.position.epoch)
        for epoch in range(run.start.position.epoch, cfg.SOLVER.MAX_EPOCH):
            run.stop.hold()
            train_epoch(run, epoch)
            if run.frame_cache and epoch == run.start.position.epoch:
                log.line(describe_cache(run.frame_cache))
            stop = dist.agree(run.stop.requested)
            if end_step(run, Position(epoch + 1), stop=stop):
                run.stop.release()
            if validation_is_due(run, epoch + 1):
                result = validate(run, epoch + 1)
        # A signal that comes now waits until the last checkpoint is written.
        run.stop.hold()
        run.saver.wait()
        run.stop.release()
    return result


def train_epoch(run: TrainRun, epoch: int) -> None:
    """Train one epoch, or the rest of it if the run starts inside it."""
    cfg, model, optimizer = run.cfg, run.learner.model, run.learner.optimizer
    guard, average = run.learner.guard, run.learner.average
    first = seed_epoch(cfg.RNG_SEED, epoch, run.start, run.device)
    num_iterations, num_skipped_before = len(run.train_loader), guard.num_skipped
    log = epoch_log(run, epoch, first)
    model.train()
    optimizer.zero_grad(set_to_none=True)
    batches = run.train_loader.batches(epoch, first=first)
    batches = run.watchdog.follow(log.watch.waiting(batches))
    batch = next(batches)
    counts = exchange(batch).counts
    for iteration in range(first, num_iterations):
        where = log.where(iteration)
        log.failures(len(counts.failures), run.bad_videos.add(counts))
        refuse_bad(run.bad_videos, batch)
        group_size, ends_group = accumulation(cfg.SOLVER.ACCUM_STEPS, iteration, num_iterations)
        lr = run.lr_at(epoch + iteration / num_iterations, group_size)

        # Forward and backward. Processes average their gradients in the last backward of a step.
        with gradients(run.wrapped, ends_group=ends_group):
            with autocast(run.device, enabled=cfg.TRAIN.MIXED_PRECISION):
                loss = run.task.step(batch.to(run.device), epoch=epoch, iteration=iteration)
            run.watchdog.enter(BACKWARD)
            # `weight` corrects for processes with fewer clips; a step is the mean of its group.
            (loss * (counts.weight / group_size)).backward()

        # Clip. The norm is measured also where nothing is clipped, since `guard` looks at it.
        norm = clip(model, cfg.SOLVER.CLIP_GRAD_L2NORM) if ends_group else None

        # Ask for the next batch while the GPU computes: its counts travel in the exchange below.
        is_last = iteration + 1 == num_iterations
        upcoming = None if is_last else next(batches)
        # Here alone the host waits for the GPU.
        loss_here, grad_norm = read_scalars(loss, norm)
        guard.add(loss_here, batch, where)
        # Here alone the processes wait for one another's host.
        shared = exchange(
            upcoming,
            loss=counts.weight * loss_here,
            stop=run.stop.requested,
            flags=guard.flags(grad_norm),
        )

        if ends_group:
            # Step, in all processes or in none. A loss or gradient that is not finite, in any of
            # them, would spoil the weights for good, so it is caught before the step.
            if not guard.skips(grad_norm, where, shared.flags):
                set_lr(optimizer, lr)
                optimizer.step()
                if average:
                    average.update()
            # Zero. Setting gradients to None saves a pass over memory.
            optimizer.zero_grad(set_to_none=True)

        shown = grad_norm if ends_group else None
        log.iteration(
            iteration, shared.mean_loss, lr=lr, grad_norm=shown, num_clips=counts.num_clips
        )
        if ends_group and not is_last:
            end_step(run, Position(epoch, iteration + 1), stop=shared.stop)
        if upcoming is not None:
            batch, counts = upcoming, shared.counts
    next(batches, None)  # past the end, where the loader and the watchdog leave the epoch
    log.end(num_skipped=guard.num_skipped - num_skipped_before)
    run.bad_videos.check(at_end=True)


def accumulation(accum_steps: int, iteration: int, num_iterations: int) -> tuple[int, bool]:
    """Return the number of iterations in this one's optimizer step, and whether it ends here.

    The last step of an epoch takes what is left, so that no gradient leaks into the next epoch.
    """
    start = iteration // accum_steps * accum_steps
    size = min(accum_steps, num_iterations - start)
    return size, iteration == start + size - 1


def refuse_bad(bad_videos: BadVideos, batch: Batch) -> None:
    """Raise a UserError if too many videos are bad, or all of the batch and their replacements."""
    bad_videos.check()
    if len(batch) == 0:
        raise UserError(
            "no video of a training batch could be decoded, "
            f"the last: {batch.failures[-1].reason} Check DATA.PATH_TO_DATA_DIR "
            "and DATA.PATH_PREFIX."
        )


def clip(model: nn.Module, limit: float) -> torch.Tensor:
    """Clip the gradient's norm to `limit` (0: no limit); return the norm before, on the device."""
    return total_norm(torch.nn.utils.clip_grad_norm_(model.parameters(), limit or math.inf))


def read_scalars(loss: torch.Tensor, norm: torch.Tensor | None) -> tuple[float, float]:
    """Return loss and gradient norm (None: 0) as numbers, in one copy from the device.

    Two copies would make the host wait twice. A float32 is the same number in float64.
    """
    norm = torch.zeros_like(loss) if norm is None else norm
    loss_here, grad_norm = torch.stack([loss.detach().double(), norm.double()]).tolist()
    return loss_here, grad_norm


def epoch_log(run: TrainRun, epoch: int, first: int) -> EpochLog:
    """Return the log of an epoch that begins with iteration `first`."""
    return EpochLog(
        run.log,
        run.device,
        epoch=epoch,
        num_epochs=run.cfg.SOLVER.MAX_EPOCH,
        num_iterations=len(run.train_loader),
        first=first,
        period=run.cfg.LOG_PERIOD,
    )


def end_step(run: TrainRun, position: Position, *, stop: bool) -> bool:
    """Save a checkpoint if one is due; return whether one was saved.

    With `stop`, which is the same in all processes, save one in any case and end the run.

    Raises:
        Requeue: `stop` is set: a process of the run got SIGTERM or SIGUSR1.
    """
    run.saver.check()
    if not stop and not checkpoint_is_due(run.cfg, position):
        return False
    if stop:
        save_and_end(run, position)
    run.saver.save(position)
    return True


def save_and_end(run: TrainRun, position: Position) -> NoReturn:
    """Save a checkpoint, wait until it is written, and raise Requeue."""
    path = run.saver.save(position)
    run.saver.wait()
    run.stop.end(f"saved after {position} in {path}")


def checkpoint_is_due(cfg: Config, position: Position) -> bool:
    """Say whether to save a checkpoint at `position`, which is the end of an optimizer step."""
    every = cfg.TRAIN.CHECKPOINT_ITERS
    if position.iteration:
        # A step may span the iteration that a checkpoint was due at.
        return every > 0 and position.iteration % every < cfg.SOLVER.ACCUM_STEPS
    last = position.epoch == cfg.SOLVER.MAX_EPOCH
    return last or every > 0 or position.epoch % cfg.TRAIN.CHECKPOINT_PERIOD == 0


def validation_is_due(run: TrainRun, epoch: int) -> bool:
    """Say whether to validate after `epoch` epochs."""
    last = epoch == run.cfg.SOLVER.MAX_EPOCH
    return run.val_loader is not None and (last or epoch % run.cfg.TRAIN.EVAL_PERIOD == 0)


def missed_validation(run: TrainRun) -> bool:
    """Say whether the run died between the checkpoint that it starts from and its validation."""
    start = run.start.position
    after_epoch = 0 < start.epoch <= run.cfg.SOLVER.MAX_EPOCH and not start.iteration
    due = after_epoch and validation_is_due(run, start.epoch)
    return dist.from_main(due and not run.validations.done(start.epoch))


def validate(run: TrainRun, epoch: int) -> Evaluation:
    """Validate after `epoch` epochs, log the result, and save the weights if they are the best.

    With TRAIN.EMA_DECAY these are the averaged weights. If the epoch is not saved yet, a signal
    interrupts the validation, and the resumed run validates instead.

    Raises:
        Requeue: a process of the run got SIGTERM or SIGUSR1.
    """
    average = run.learner.average
    try:
        with average.in_place() if average else nullcontext():
            return validate_in_place(run, epoch)
    except Interrupted:
        save_and_end(run, Position(epoch))


def validate_in_place(run: TrainRun, epoch: int) -> Evaluation:
    """Validate the weights that the model has now; see `validate`."""
    assert run.val_loader is not None
    result = evaluate(
        *(run.cfg, run.learner.model, run.val_loader, "val"),
        device=run.device,
        log=run.log,
        is_to_end=lambda: run.stop.requested,
    )
    log_validation(run, result, epoch)
    if dist.by_main(lambda: run.validations.is_best(epoch, result.top1)):
        save_best(run, epoch, result)
    # The other processes wait: when one of them fails, torchrun ends the rest.
    dist.by_main(lambda: run.validations.add(epoch, float(result.top1)))
    return result


def save_best(run: TrainRun, epoch: int, result: Evaluation) -> None:
    """Save the weights that were validated, without the state that a resume needs."""
    content = {
        "epoch": epoch,
        "model_state": whole(run.learner.model.state_dict()),
        "cfg": to_yaml(run.cfg),
        "class_names": run.class_names,
        origin.KEY: asdict(run.start.origin),
        "val_top1": float(result.top1),
    }
    if dist.is_main():
        write_checkpoint(best_path(run.cfg.OUTPUT_DIR), content)


def log_validation(run: TrainRun, result: Evaluation, finished: int) -> None:
    """Log the result of the validation after `finished` epochs."""
    num_epochs = run.cfg.SOLVER.MAX_EPOCH
    averaged = " of the averaged weights" if run.learner.average else ""
    run.log.line(f"epoch {finished}/{num_epochs} validation{averaged}: {result.summary()}")
    run.log.stats("val_epoch", epoch=f"{finished}/{num_epochs}", **result.figures())
    run.log.scalars(finished, val__top1_acc=100 * result.top1, val__top5_acc=100 * result.top5)
