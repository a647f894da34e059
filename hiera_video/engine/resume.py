"""A run's state on the disk and back: where it stood, and all that it had gathered until then."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.matching import read_checkpoint, start_from_content
from hiera_video.checkpoints.run_folder import Position, remove_old, remove_unfinished
from hiera_video.checkpoints.saved_config import saved_settings
from hiera_video.config import Config, to_yaml
from hiera_video.data.class_names import contradiction
from hiera_video.engine.checkpoint import (
    read_last,
    refuse_other_classes,
    restore,
    run_state,
    save_checkpoint,
)
from hiera_video.engine.parallel.fsdp import is_sharded
from hiera_video.engine.train_run import TrainRun
from hiera_video.models import origin as export_origin
from hiera_video.models.origin import Origin, origin_from, origin_of_content
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError
from hiera_video.utils.seed import seed_for

RngState = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins; `rng_state` is that of this process, inside an epoch."""

    position: Position
    origin: Origin
    rng_state: RngState | None = None


def start_run(run: TrainRun) -> Start:
    """Load the run's last whole checkpoint, or the weights to start from, if there are any."""
    train_cfg = run.cfg.TRAIN
    if dist.is_main():
        remove_unfinished(run.cfg.OUTPUT_DIR)
    # What torch's agent has started anew goes on, whatever the config says of a new run.
    resumes = train_cfg.AUTO_RESUME or dist.was_restarted()
    last = read_last(run.cfg.OUTPUT_DIR, run.log.warning) if resumes else None
    refuse_other_folders(last[0] if last else "")
    if last:
        return _go_on(run, *last)
    run.validations.forget()
    if train_cfg.CHECKPOINT_FILE_PATH:
        return Start(Position(0), _start_from_weights(run, train_cfg.CHECKPOINT_FILE_PATH))
    if run.cfg.MODEL.LINEAR_PROBE or run.cfg.MODEL.FREEZE_LAYERS:
        key = "LINEAR_PROBE" if run.cfg.MODEL.LINEAR_PROBE else "FREEZE_LAYERS"
        run.log.warning(
            f"MODEL.{key} keeps random weights as they are: TRAIN.CHECKPOINT_FILE_PATH is empty. "
            "Try the weights of a pretraining there."
        )
    return Start(Position(0), origin_from(""))


def _start_from_weights(run: TrainRun, path: str) -> Origin:
    key = "TRAIN.CHECKPOINT_FILE_PATH"
    content = read_checkpoint(path, key=key)
    classes = run.cfg.MODEL.NUM_CLASSES if run.cfg.TASK == "classify" else None
    summary = start_from_content(run.model, content, path=path, key=key, num_classes=classes)
    run.log.line(f"started from {path}: {summary}")
    for warning in summary.warnings:
        run.log.warning(warning)
    said = contradiction(content.get("class_names"), run.class_names)
    if said and not summary.reinitialised and not summary.missing:
        run.log.warning(f"{key}: the classifier of {path!r} was trained for other classes: {said}.")
    if run.average:
        run.average.restart()
    return dist.by_main(lambda: origin_from(path, content))


def refuse_other_folders(last: str) -> None:
    """Raise a UserError if the processes do not all see the same last checkpoint (empty: none)."""
    found = dist.gather(last)
    for rank, path in enumerate(found):
        if path != found[0]:
            raise UserError(
                f"OUTPUT_DIR must be one folder for all machines, got one where rank 0 sees "
                f"{found[0] or 'no checkpoint'!r} and rank {rank} {path or 'none'!r}. Try a folder "
                "that they share."
            )


def _go_on(run: TrainRun, path: str, content: dict[str, Any]) -> Start:
    refuse_other_classes(content, run.class_names, path, key="TRAIN.AUTO_RESUME")
    if distributed.is_folder(path) and is_sharded(run.model):
        # Seconds to import, and done already in a run whose model is cut up.
        from hiera_video.engine.checkpoint_distributed import restore_shares

        restore_shares(content, path, model=run.model, optimizer=run.optimizer, average=run.average)
    else:
        if distributed.is_folder(path):
            content = distributed.read(path, key="TRAIN.AUTO_RESUME", optimizer=True)
        restore(content, path, model=run.model, optimizer=run.optimizer)
        if run.average and content.get("ema_state"):
            run.average.load(content["ema_state"], int(content.get("ema_steps", 0)))
        elif run.average:
            run.average.restart()
    run.guard.in_a_row = int(content.get("bad_steps_in_a_row", 0))
    saved = Position(int(content["epoch"]), int(content.get("iteration", 0)))
    run.log.line(f"resumed after {saved} from {path}")
    if changed := changed_keys(str(content.get("cfg", "")), run.cfg):
        run.log.line(f"changed since that checkpoint: {'; '.join(changed)}")
    origin = _origin_of_run(run, content)
    position = position_now(
        saved,
        saved_iterations=int(content.get("num_iterations", len(run.train_loader))),
        num_iterations=len(run.train_loader),
        accum_steps=run.cfg.SOLVER.ACCUM_STEPS,
    )
    rng_states = content.get("rng_states", [])
    if not saved.iteration or (position == saved and len(rng_states) == dist.world_size()):
        return Start(position, origin, rng_states[dist.rank()] if saved.iteration else None)
    run.log.warning(
        f"the batches or processes are others than when the checkpoint was written: the run goes "
        f"on after {position}, and its numbers are not those of one never stopped."
    )
    return Start(position, origin)


def _origin_of_run(run: TrainRun, content: Mapping[str, Any]) -> Origin:
    """Return the origin of the weights in this run's checkpoint; log weights that are not used."""
    origin = dist.by_main(lambda: origin_of_content(content))
    if unused := origin.unused(run.cfg.TRAIN.CHECKPOINT_FILE_PATH):
        run.log.line(
            f"TRAIN.CHECKPOINT_FILE_PATH {unused!r} is not used: the run goes on from its own "
            f"checkpoint, and began with {origin.weights or 'fresh weights'}"
        )
    return origin


def position_now(
    saved: Position, *, saved_iterations: int, num_iterations: int, accum_steps: int
) -> Position:
    """Return the position in epochs of `num_iterations`, at the beginning of a step.

    Where they had `saved_iterations` then, it is the same share of the epoch, rounded down.
    """
    iteration = saved.iteration * num_iterations // saved_iterations
    return Position(saved.epoch, iteration // accum_steps * accum_steps)


def save_run(run: TrainRun, position: Position) -> str:
    """Save a checkpoint at `position`, remove old ones, and return its path; all processes call it.

    Rank 0 writes it, or, of a model that is cut up, each process its share while training goes on.

    Raises:
        UserError: it cannot be written, or another run has taken OUTPUT_DIR; older ones are
            untouched.
    """
    if run.lock:
        run.lock.check()
    more = {
        "num_iterations": len(run.train_loader),
        "rng_states": dist.gather(rng_state(run.device)),
        "bad_steps_in_a_row": run.guard.in_a_row,
        export_origin.KEY: asdict(run.origin),
    }
    if run.average is not None:
        more["ema_state"] = run.model.state_dict() | run.average.shares()
        more["ema_steps"] = run.average.num_steps
    state: dict[str, Any] = {
        "epoch": position.epoch,
        "iteration": position.iteration,
        "model": run.model,
        "optimizer": run.optimizer,
        "config_yaml": to_yaml(run.cfg),
        "class_names": run.class_names,
        "more": more,
    }
    if run.saves is not None:
        return run.saves.save(position, run_state(**state))
    path = save_checkpoint(run.cfg.OUTPUT_DIR, **state)
    if dist.is_main():
        remove_old(run.cfg.OUTPUT_DIR, position, keep=run.cfg.TRAIN.KEEP_CHECKPOINTS)
    # The others wait: where one process exits, torchrun ends the rest.
    return dist.from_main(path)


def seed_epoch(run: TrainRun, epoch: int, start: Start) -> int:
    """Set PyTorch's generators for an epoch; return the iteration to begin with.

    Seeded by epoch, so that a resumed run draws the same drop paths as one that never stopped.
    """
    # Rank 0 draws what a run of one process does.
    ranks = [dist.rank()] if dist.rank() else []
    torch.manual_seed(seed_for("epoch", run.cfg.RNG_SEED, epoch, *ranks))
    if epoch != start.position.epoch:
        return 0
    if start.rng_state is not None:
        set_rng_state(start.rng_state, run.device)
    return start.position.iteration


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of PyTorch's generators of this process: `cpu`, and `cuda` on a GPU."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_rng_state(state: RngState, device: torch.device) -> None:
    """Put PyTorch's generators back into a state of `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def changed_keys(saved_yaml: object, cfg: Config) -> list[str]:
    """Return "KEY: then -> now" for each key whose value differs in a checkpoint's `cfg`.

    If that config cannot be read, the only item says so.
    """
    saved, now = saved_settings(saved_yaml), saved_settings(to_yaml(cfg))
    if not saved:
        return ["its config cannot be read, so what it says is not known"]
    return [
        f"{key}: {saved.get(key)} -> {now.get(key)}"
        for key in dict.fromkeys([*saved, *now])
        if saved.get(key) != now.get(key)
    ]
