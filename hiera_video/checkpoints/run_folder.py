"""The names of what runs leave in an OUTPUT_DIR, and the checkpoints found there by position.

`checkpoint_epoch_00010.pyth` stands after 10 finished epochs, `checkpoint_epoch_00010_iter_0000200`
200 iterations further on, `checkpoint_best.pyth` where the validation was best. Those of a run with
DIST.STRATEGY fsdp are folders, `checkpoint_epoch_00010.dcp` (`checkpoints/distributed.py`).
"""

import os
import re
import shutil
from contextlib import suppress
from typing import NamedTuple

from hiera_video.checkpoints import distributed

CONFIG_FILES = ("config.yaml", "config_test.yaml")  # of a training, of a test alone
LOG_FILE = "stdout.log"
RESULTS_FILE = "test_results.json"
CONFUSION_FILE = "test_confusion.png"
BEST = "checkpoint_best.pyth"
_NAME = re.compile(r"checkpoint_epoch_(\d{5,})(?:_iter_(\d{7,}))?\.(pyth|dcp)")
_TEMPORARY = re.compile(r"\.checkpoint_.*\.tmp")
# Of those inside an epoch: the newest, and one more should that be broken.
_KEPT_INSIDE_EPOCHS = 2


class Position(NamedTuple):
    """How far a run has come: finished epochs, and the iterations done of the next one."""

    epoch: int
    iteration: int = 0

    def __str__(self) -> str:
        if not self.iteration:
            return f"epoch {self.epoch}"
        return f"iteration {self.iteration} of epoch {self.epoch + 1}"


def checkpoint_folder(output_dir: str) -> str:
    """Return where a run's checkpoints stand."""
    return os.path.join(output_dir, "checkpoints")


def checkpoint_path(
    output_dir: str, epoch: int, iteration: int = 0, *, ending: str = ".pyth"
) -> str:
    """Return where the checkpoint after `epoch` finished epochs and `iteration` more stands."""
    inside = f"_iter_{iteration:07d}" if iteration else ""
    name = f"checkpoint_epoch_{epoch:05d}{inside}{ending}"
    return os.path.join(checkpoint_folder(output_dir), name)


def best_path(output_dir: str) -> str:
    """Return where the checkpoint of the best validation stands."""
    return os.path.join(checkpoint_folder(output_dir), BEST)


def saved(output_dir: str) -> list[tuple[Position, str]]:
    """Return position and path of the checkpoints in `output_dir`, the last one first.

    Half-written folders are among them.
    """
    folder = checkpoint_folder(output_dir)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [match for name in names if (match := _NAME.fullmatch(name))]
    found = [(Position(int(m[1]), int(m[2] or 0)), os.path.join(folder, m[0])) for m in matches]
    return sorted(found, reverse=True)


def positions(output_dir: str) -> list[Position]:
    """Return the positions of the checkpoints in `output_dir`, the last one first."""
    return list(dict.fromkeys(position for position, _ in saved(output_dir)))


def last_checkpoint(output_dir: str) -> str | None:
    """Return the checkpoint of the last position in `output_dir`, or None.

    Folders that are half-written do not count.
    """
    return next((path for _, path in saved(output_dir) if not _is_unfinished(path)), None)


def _is_unfinished(path: str) -> bool:
    return distributed.is_folder(path) and not distributed.is_complete(path)


def remove_old(output_dir: str, now: Position, *, keep: int) -> None:
    """Remove what a checkpoint at `now` has made superfluous.

    `keep` (0: all) are left of those after an epoch, and two of those inside one. What is of a
    later position than `now` (a broken file that was skipped, say) neither counts nor goes.
    """
    found = [(position, path) for position, path in saved(output_dir) if position <= now]
    unfinished = {path for _, path in found if _is_unfinished(path)}
    finished = list(dict.fromkeys(p for p, path in found if path not in unfinished))
    epochs = [position for position in finished if not position.iteration]
    kept = set(epochs[:keep] if keep else epochs)
    kept |= {position for position in finished[:_KEPT_INSIDE_EPOCHS] if position.iteration}
    for position, path in found:
        if position not in kept or path in unfinished:
            remove(path)


def remove(path: str) -> None:
    """Remove a checkpoint as far as that is possible; of a folder, first what makes it whole."""
    with suppress(OSError):  # gone already, or not ours to remove
        if not os.path.isdir(path):
            os.unlink(path)
            return
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(path, distributed.INDEX))
        shutil.rmtree(path)


def remove_unfinished(output_dir: str) -> None:
    """Remove what a run that was killed while it saved has left behind."""
    folder = checkpoint_folder(output_dir)
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if _TEMPORARY.fullmatch(name):
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))
