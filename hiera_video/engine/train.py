"""Training: epochs over the videos, with validation and checkpoints between them."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import NoReturn

import torch

from hiera_video.checkpoints.run_folder import Position, best_path
from hiera_video.config import Config, to_yaml
from hiera_video.data.batch import Batch
from hiera_video.data.records import VideoRecord
from hiera_video.engine.checkpoint import save_config, write_checkpoint
from hiera_video.engine.epoch_log import EpochLog
from hiera_video.engine.evaluate import Evaluation, Interrupted, evaluate
from hiera_video.engine.parallel import data_parallel
from hiera_video.engine.parallel.fsdp import total_norm, whole
from hiera_video.engine.parallel.watchdog import BACKWARD
from hiera_video.engine.resume import Start, save_run, seed_epoch, start_run
from hiera_video.engine.run_log import RunLog
from hiera_video.engine.train_run import (
    TrainRun,
    describe,
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
    """Train from fresh or given weights, or the run's last checkpoint, to SOLVER.MAX_EPOCH.

    `lock` is that on OUTPUT_DIR, in rank 0. Returns the last validation, if there was one.
    """
    run, result = prepare(cfg, records, device, log, lock), None
    start = start_run(run)
    run = replace(run, origin=start.origin)
    save_config(cfg, log.warning)
    for line in describe_data(cfg, records["train"]):
        log.line(line)
    log.line(describe(run, start.position))
    if smaller := describe_smaller_steps(cfg, len(records["train"])):
        log.warning(smaller)
    with run.watchdog, run.stop, run.saves or nullcontext():
        if missed_validation(run, start.position):
            result = validate(run, start.position.epoch)
        for epoch in range(start.position.epoch, cfg.SOLVER.MAX_EPOCH):
            run.stop.hold()
            train_epoch(run, epoch, start)
            if end_step(run, Position(epoch + 1)):
                run.stop.release()
            if validation_is_due(run, epoch + 1):
                result = validate(run, epoch + 1)
        finish_saving(run)
    return result


def train_epoch(run: TrainRun, epoch: int, start: Start) -> None:
    """Train one pass over the videos, or what is left of it where `start` is inside it."""
    first = seed_epoch(run, epoch, start)
    run.model.train()
    run.optimizer.zero_grad(set_to_none=True)
    num_iterations, log = len(run.train_loader), EpochLog(run, epoch, first)
    batches = log.watch.waiting(run.train_loader.batches(epoch, first=first))
    batches = run.watchdog.follow(batches)
    for iteration, batch in enumerate(batches, first):
        tally = data_parallel.tally(batch)
        log.failures(tally)
        refuse_bad(run, batch)
        group_size, ends_group = accumulation(run.cfg.SOLVER.ACCUM_STEPS, iteration, num_iterations)
        lr = run.lr_at(epoch + iteration / num_iterations, group_size)
        with data_parallel.gradients(run.wrapped, ends_group=ends_group):
            with autocast(run.device, enabled=run.cfg.TRAIN.MIXED_PRECISION):
                loss = run.task.step(batch.to(run.device), epoch=epoch, iteration=iteration)
            run.watchdog.enter(BACKWARD)
            (loss * (tally.weight / group_size)).backward()
        run.guard.add(loss.item(), batch, where := log.where(iteration))
        grad_norm = optimizer_step(run, lr, where) if ends_group else None
        mean_loss = tally.mean_loss(loss)
        log.iteration(iteration, mean_loss, lr=lr, grad_norm=grad_norm, num_clips=tally.num_clips)
        if ends_group and iteration + 1 < num_iterations:
            end_step(run, Position(epoch, iteration + 1))
    log.end()
    run.bad_videos.check(at_end=True)


def end_step(run: TrainRun, position: Position) -> bool:
    """Save a checkpoint if it is time to, or if a signal asks the run to end, and then end it.

    Returns whether one was saved.

    Raises:
        Requeue: a process of the run got SIGTERM or SIGUSR1.
    """
    if run.saves:
        run.saves.check()
    stop = dist.agree(run.stop.requested)
    if not stop and not checkpoint_is_due(run.cfg, position):
        return False
    if stop:
        save_and_end(run, position)
    save_run(run, position)
    return True


def save_and_end(run: TrainRun, position: Position) -> NoReturn:
    """Save a checkpoint, wait until it is written, and raise Requeue."""
    path = save_run(run, position)
    if run.saves:
        run.saves.wait()
    run.stop.end(f"saved after {position} in {path}")


def finish_saving(run: TrainRun) -> None:
    """Wait for a checkpoint that is being written; a signal that comes now waits, too."""
    if run.saves:
        run.stop.hold()
        run.saves.wait()
        run.stop.release()


def checkpoint_is_due(cfg: Config, position: Position) -> bool:
    """Say whether a checkpoint is wanted at `position`, which is the end of an optimizer step."""
    every = cfg.TRAIN.CHECKPOINT_ITERS
    if position.iteration:
        # Within the iterations of the step that has just ended.
        return every > 0 and position.iteration % every < cfg.SOLVER.ACCUM_STEPS
    last = position.epoch == cfg.SOLVER.MAX_EPOCH
    return last or every > 0 or position.epoch % cfg.TRAIN.CHECKPOINT_PERIOD == 0


def validation_is_due(run: TrainRun, epoch: int) -> bool:
    """Say whether the run is to be validated after `epoch` epochs."""
    last = epoch == run.cfg.SOLVER.MAX_EPOCH
    return run.val_loader is not None and (last or epoch % run.cfg.TRAIN.EVAL_PERIOD == 0)


def missed_validation(run: TrainRun, start: Position) -> bool:
    """Say whether the run had died between the checkpoint it goes on from and its validation."""
    after_epoch = 0 < start.epoch <= run.cfg.SOLVER.MAX_EPOCH and not start.iteration
    due = after_epoch and validation_is_due(run, start.epoch)
    return dist.from_main(due and not run.validations.done(start.epoch))


def validate(run: TrainRun, epoch: int) -> Evaluation:
    """Validate after `epoch` epochs, log it, and save the weights if they are the best so far.

    With TRAIN.EMA_DECAY these are the averaged weights. Where the epoch is not saved yet, a signal
    breaks the validation off; the run that goes on makes up for it.

    Raises:
        Requeue: a process of the run got SIGTERM or SIGUSR1.
    """
    try:
        with run.average.in_place() if run.average else nullcontext():
            return validate_in_place(run, epoch)
    except Interrupted:
        save_and_end(run, Position(epoch))


def validate_in_place(run: TrainRun, epoch: int) -> Evaluation:
    """Validate the weights that the model has, with all that `validate` does."""
    assert run.val_loader is not None
    result = evaluate(
        *(run.cfg, run.model, run.val_loader, "val"),
        device=run.device,
        log=run.log,
        is_to_end=lambda: run.stop.requested,
    )
    log_validation(run, result, epoch)
    if dist.by_main(lambda: run.validations.is_best(epoch, result.top1)):
        save_best(run, epoch, result)
    # The others wait: where one process fails, torchrun ends the rest.
    dist.by_main(lambda: run.validations.add(epoch, float(result.top1)))
    return result


def save_best(run: TrainRun, epoch: int, result: Evaluation) -> None:
    """Save the weights that were validated; not what it takes to go on training."""
    content = {
        "epoch": epoch,
        "model_state": whole(run.model.state_dict()),
        "cfg": to_yaml(run.cfg),
        "class_names": run.class_names,
        origin.KEY: asdict(run.origin),
        "val_top1": float(result.top1),
    }
    if dist.is_main():
        write_checkpoint(best_path(run.cfg.OUTPUT_DIR), content)


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


def optimizer_step(run: TrainRun, lr: float, where: str) -> float:
    """Clip the gradient (0: only measure it), step, clear it; return its norm before clipping.

    The step is not taken where loss or gradient are not finite; `where` is its last iteration.

    Raises:
        UserError: that was so too many times in a row.
    """
    limit = run.cfg.SOLVER.CLIP_GRAD_L2NORM or math.inf
    norm = total_norm(torch.nn.utils.clip_grad_norm_(run.model.parameters(), limit))
    if not run.guard.skips(norm, where):
        set_lr(run.optimizer, lr)
        run.optimizer.step()
        if run.average:
            run.average.update()
    run.optimizer.zero_grad(set_to_none=True)
    return norm


def log_validation(run: TrainRun, result: Evaluation, finished: int) -> None:
    """Log what a validation gave after `finished` epochs."""
    num_epochs = run.cfg.SOLVER.MAX_EPOCH
    averaged = " of the averaged weights" if run.average else ""
    run.log.line(f"epoch {finished}/{num_epochs} validation{averaged}: {result.summary()}")
    run.log.stats("val_epoch", epoch=f"{finished}/{num_epochs}", **result.figures())
    run.log.scalars(finished, val__top1_acc=100 * result.top1, val__top5_acc=100 * result.top5)
