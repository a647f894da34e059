"""Save a run's state in OUTPUT_DIR, and go on from what is there.

`RunSaver` writes checkpoints, `start_run` reads the last one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.checkpoints.matching import start_from_weights
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
from hiera_video.engine.ema import WeightAverage
from hiera_video.engine.guards import StepGuard
from hiera_video.engine.parallel.fsdp import is_sharded
from hiera_video.engine.run_log import RunLog
from hiera_video.models import origin as export_origin
from hiera_video.models.origin import Origin, origin_from, origin_of_content
from hiera_video.utils import dist
from hiera_video.utils.byproducts import Warn
from hiera_video.utils.errors import UserError
from hiera_video.utils.folder_lock import FolderLock
from hiera_video.utils.seed import seed_for

if TYPE_CHECKING:
    from hiera_video.engine.checkpoint_distributed import ShardedSaves

RngState = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Learner:
    """What changes as a run learns, and what its checkpoints hold.

    `guard` counts the bad steps in a row, which a resumed run goes on counting.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    guard: StepGuard


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins.

    `rng_state` is that of this process's generators, inside an epoch. `resumed` says whether the
    run goes on from its own checkpoint.
    """

    position: Position
    origin: Origin
    rng_state: RngState | None = None
    resumed: bool = False


def start_run(
    cfg: Config,
    learner: Learner,
    *,
    num_iterations: int,
    class_names: Sequence[str] | None,
    log: RunLog,
) -> Start:
    """Load the run's last undamaged checkpoint, or the weights to start from, if there are any."""
    if dist.is_main():
        remove_unfinished(cfg.OUTPUT_DIR)
    # Processes that torch's agent has restarted resume, whatever the config says of a new run.
    resumes = cfg.TRAIN.AUTO_RESUME or dist.was_restarted()
    last = read_last(cfg.OUTPUT_DIR, log.warning) if resumes else None
    refuse_other_folders(last[0] if last else "")
    if last:
        path, content = last
        refuse_other_classes(content, class_names, path, key="TRAIN.AUTO_RESUME")
        _restore(content, path, learner)
        return _go_on(cfg, content, path, num_iterations, log)
    if cfg.TRAIN.CHECKPOINT_FILE_PATH:
        return Start(Position(0), _start_from_weights(cfg, learner, class_names, log))
    if cfg.MODEL.LINEAR_PROBE or cfg.MODEL.FREEZE_LAYERS:
        key = "LINEAR_PROBE" if cfg.MODEL.LINEAR_PROBE else "FREEZE_LAYERS"
        log.warning(
            f"MODEL.{key} keeps random weights as they are: TRAIN.CHECKPOINT_FILE_PATH is empty. "
            "Try the weights of a pretraining there."
        )
    return Start(Position(0), origin_from(""))


def _start_from_weights(
    cfg: Config, learner: Learner, class_names: Sequence[str] | None, log: RunLog
) -> Origin:
    path, key = cfg.TRAIN.CHECKPOINT_FILE_PATH, "TRAIN.CHECKPOINT_FILE_PATH"
    content = read_checkpoint(path, key=key)
    classes = cfg.MODEL.NUM_CLASSES if cfg.TASK == "classify" else None
    summary = start_from_weights(learner.model, path, key=key, num_classes=classes, content=content)
    log.line(f"started from {path}: {summary}")
    for warning in summary.warnings:
        log.warning(warning)
    said = contradiction(content.get("class_names"), class_names)
    if said and not summary.reinitialised and not summary.missing:
        log.warning(f"{key}: the classifier of {path!r} was trained for other classes: {said}.")
    if learner.average:
        learner.average.restart()
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


def _restore(content: dict[str, Any], path: str, learner: Learner) -> None:
    """Load a run's own checkpoint, whose `content` was read from `path`."""
    model, optimizer, average = learner.model, learner.optimizer, learner.average
    if distributed.is_folder(path) and is_sharded(model):
        # Importing it takes seconds; a run with FSDP has done so already.
        from hiera_video.engine.checkpoint_distributed import restore_shares

        restore_shares(content, path, model=model, optimizer=optimizer, average=average)
    else:
        if distributed.is_folder(path):
            content = distributed.read(path, key="TRAIN.AUTO_RESUME", optimizer=True)
        restore(content, path, model=model, optimizer=optimizer)
        if average and content.get("ema_state"):
            average.load(content["ema_state"], int(content.get("ema_steps", 0)))
        elif average:
            average.restart()
    learner.guard.in_a_row = int(content.get("bad_steps_in_a_row", 0))


def _go_on(
    cfg: Config, content: Mapping[str, Any], path: str, num_iterations: int, log: RunLog
) -> Start:
    """Return where a run goes on from its own checkpoint, and log it."""
    saved = Position(int(content["epoch"]), int(content.get("iteration", 0)))
    log.line(f"resumed after {saved} from {path}")
    if changed := changed_keys(str(content.get("cfg", "")), cfg):
        log.line(f"changed since that checkpoint: {'; '.join(changed)}")
    origin = dist.by_main(lambda: origin_of_content(content))
    if unused := origin.unused(cfg.TRAIN.CHECKPOINT_FILE_PATH):
        log.line(
            f"TRAIN.CHECKPOINT_FILE_PATH {unused!r} is not used: the run goes on from its own "
            f"checkpoint, and began with {origin.weights or 'fresh weights'}"
        )
    position = position_now(
        saved,
        saved_iterations=int(content.get("num_iterations", num_iterations)),
        num_iterations=num_iterations,
        accum_steps=cfg.SOLVER.ACCUM_STEPS,
    )
    rng_states = content.get("rng_states", [])
    if not saved.iteration or (position == saved and len(rng_states) == dist.world_size()):
        rng_state = rng_states[dist.rank()] if saved.iteration else None
        return Start(position, origin, rng_state, resumed=True)
    log.warning(
        f"the batches or processes are others than when the checkpoint was written: the run goes "
        f"on after {position}, and its numbers are not those of one never stopped."
    )
    return Start(position, origin, resumed=True)


def position_now(
    saved: Position, *, saved_iterations: int, num_iterations: int, accum_steps: int
) -> Position:
    """Return the position in epochs of `num_iterations`, at the beginning of a step.

    Where they had `saved_iterations` then, it is the same share of the epoch, rounded down.
    """
    iteration = saved.iteration * num_iterations // saved_iterations
    return Position(saved.epoch, iteration // accum_steps * accum_steps)


class RunSaver:
    """Saves a run's checkpoints and removes old ones; all processes call every method.

    Rank 0 writes a file. With FSDP, each process writes its part of a folder while training goes
    on. Leave it as a context to wait for the last folder.

    Args:
        cfg: the run's config, which is saved, too.
        learner: what is saved.
        origin: of the weights that the run began with.
        device: whose random generator is saved.
        num_iterations: of an epoch.
        class_names: of the classifier; None where unknown.
        lock: on OUTPUT_DIR, in rank 0.
        warn: gets a line about a save that failed where the run ends for another reason.
    """

    def __init__(
        self,
        cfg: Config,
        learner: Learner,
        *,
        origin: Origin,
        device: torch.device,
        num_iterations: int,
        class_names: list[str] | None,
        lock: FolderLock | None,
        warn: Warn,
    ) -> None:
        self._cfg = cfg
        self._learner = learner
        self._origin = origin
        self._device = device
        self._num_iterations = num_iterations
        self._class_names = class_names
        self._lock = lock
        self._background = _background_saves(cfg, warn) if is_sharded(learner.model) else None

    def save(self, position: Position) -> str:
        """Save a checkpoint at `position`, remove old ones, and return its path.

        Raises:
            UserError: it cannot be written, or another run has taken OUTPUT_DIR; older ones are
                untouched.
        """
        if self._lock:
            self._lock.check()
        average = self._learner.average
        more = {
            "num_iterations": self._num_iterations,
            "rng_states": dist.gather(rng_state(self._device)),
            "bad_steps_in_a_row": self._learner.guard.in_a_row,
            export_origin.KEY: asdict(self._origin),
        }
        if average is not None:
            more["ema_state"] = self._learner.model.state_dict() | average.shares()
            more["ema_steps"] = average.num_steps
        state: dict[str, Any] = {
            "epoch": position.epoch,
            "iteration": position.iteration,
            "model": self._learner.model,
            "optimizer": self._learner.optimizer,
            "config_yaml": to_yaml(self._cfg),
            "class_names": self._class_names,
            "more": more,
        }
        if self._background is not None:
            return self._background.save(position, run_state(**state))
        path = save_checkpoint(self._cfg.OUTPUT_DIR, **state)
        if dist.is_main():
            keep = self._cfg.TRAIN.KEEP_CHECKPOINTS
            remove_old(self._cfg.OUTPUT_DIR, position, keep=keep)
        # The other processes wait: when one of them exits, torchrun ends the rest.
        return dist.from_main(path)

    def check(self) -> None:
        """Raise a UserError if a checkpoint that was being written could not be."""
        if self._background is not None:
            self._background.check()

    def wait(self) -> None:
        """Wait until no checkpoint is being written. Raises a UserError like `check`."""
        if self._background is not None:
            self._background.wait()

    def __enter__(self) -> "RunSaver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._background is not None:
            self._background.__exit__(kind, error, traceback)


def _background_saves(cfg: Config, warn: Warn) -> "ShardedSaves":
    # Importing it takes seconds, so import it only with FSDP.
    from hiera_video.engine.checkpoint_distributed import ShardedSaves

    keep, timeout_sec = cfg.TRAIN.KEEP_CHECKPOINTS, cfg.DIST.TIMEOUT_SEC
    return ShardedSaves(cfg.OUTPUT_DIR, keep=keep, timeout_sec=timeout_sec, warn=warn)


def seed_epoch(seed: int, epoch: int, start: Start, device: torch.device) -> int:
    """Seed PyTorch's generators for an epoch; return the iteration to begin with.

    The seed depends on the epoch, so that a resumed run draws the same drop paths as a run that
    was never stopped.
    """
    # Rank 0 draws what a run of one process does.
    ranks = [dist.rank()] if dist.rank() else []
    torch.manual_seed(seed_for("epoch", seed, epoch, *ranks))
    if epoch != start.position.epoch:
        return 0
    if start.rng_state is not None:
        set_rng_state(start.rng_state, device)
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
