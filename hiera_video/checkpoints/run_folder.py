"""Name the files of a run in its OUTPUT_DIR, and find, order and remove its checkpoints.

`checkpoint_epoch_00010.pyth` was saved after 10 finished epochs, and
`checkpoint_epoch_00010_iter_0000200.pyth` 200 iterations later. `checkpoint_best.pyth` has the best
validation result. A run with DIST.STRATEGY fsdp saves folders such as `checkpoint_epoch_00010.dcp`
(see `checkpoints/distributed.py`).
"""

import os
import re
import shutil
from contextlib import suppress
from typing import NamedTuple

from hiera_video.checkpoints import distributed

CONFIG_FILES = ("config.yaml", "config_test.yaml")  # of a training run, of a run that only tests
LOG_FILE = "stdout.log"
RESULTS_FILE = "test_results.json"
CONFUSION_FILE = "test_confusion.png"
BEST = "checkpoint_best.pyth"
_NAME = re.compile(r"checkpoint_epoch_(\d{5,})(?:_iter_(\d{7,}))?\.(pyth|dcp)")
_TEMPORARY = re.compile(r"\.checkpoint_.*\.tmp")
# The newest checkpoint inside an epoch, and one more in case the newest is broken.
_KEPT_INSIDE_EPOCHS = 2


class Position(NamedTuple):
    """The progress of a run: finished epochs, and finished iterations of the next epoch."""

    epoch: int
    iteration: int = 0

    def __str__(self) -> str:
        if not self.iteration:
            return f"epoch {self.epoch}"
        return f"iteration {self.iteration} of epoch {self.epoch + 1}"


def checkpoint_folder(output_dir: str) -> str:
    """Return the folder of a run's checkpoints."""
    return os.path.join(output_dir, "checkpoints")


def checkpoint_path(
    output_dir: str, epoch: int, iteration: int = 0, *, ending: str = ".pyth"
) -> str:
    """Return the path of the checkpoint after `epoch` epochs and `iteration` more iterations."""
    inside = f"_iter_{iteration:07d}" if iteration else ""
    name = f"checkpoint_epoch_{epoch:05d}{inside}{ending}"
    return os.path.join(checkpoint_folder(output_dir), name)


def best_path(output_dir: str) -> str:
    """Return the path of the checkpoint with the best validation result."""
    return os.path.join(checkpoint_folder(output_dir), BEST)


def saved(output_dir: str) -> list[tuple[Position, str]]:
    """Return position and path of the checkpoints in `output_dir`, last position first.

    The result includes half-written folders.
    """
    folder = checkpoint_folder(output_dir)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [match for name in names if (match := _NAME.fullmatch(name))]
    found = [(Position(int(m[1]), int(m[2] or 0)), os.path.join(folder, m[0])) for m in matches]
    return sorted(found, reverse=True)


def positions(output_dir: str) -> list[Position]:
    """Return the positions of the checkpoints in `output_dir`, last position first."""
    return list(dict.fromkeys(position for position, _ in saved(output_dir)))


def last_checkpoint(output_dir: str) -> str | None:
    """Return the path of the last checkpoint in `output_dir`, or None.

    Half-written folders are skipped.
    """
    return next((path for _, path in saved(output_dir) if not _is_unfinished(path)), None)


def _is_unfinished(path: str) -> bool:
    return distributed.is_folder(path) and not distributed.is_complete(path)


def remove_old(output_dir: str, now: Position, *, keep: int) -> None:
    """Remove checkpoints that are no longer needed after a checkpoint at `now`.

    `keep` checkpoints at the end of an epoch are kept (0: all), and up to two inside an epoch.
    Checkpoints later than `now`, such as a broken file that was skipped, are neither counted nor
    removed.
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
    """Remove a checkpoint if possible; in a folder, remove first the index that completes it."""
    with suppress(OSError):  # already removed, or no permission
        if not os.path.isdir(path):
            os.unlink(path)
            return
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(path, distributed.INDEX))
        shutil.rmtree(path)


def remove_unfinished(output_dir: str) -> None:
    """Remove temporary files of a run that was killed while it saved."""
    folder = checkpoint_folder(output_dir)
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if _TEMPORARY.fullmatch(name):
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))
