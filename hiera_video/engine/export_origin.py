"""Whose weights a checkpoint holds: the authors' licence goes with what was trained from theirs."""

import os
from dataclasses import dataclass

import yaml

from hiera_video.config import Config
from hiera_video.models import hiera, hiera_mae
from hiera_video.models.pretrained import published_files
from hiera_video.models.weights import HIERA_URL, read_checkpoint
from hiera_video.utils import io, sharded
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import public_functions

PUBLISHED_LICENCE = "CC-BY-NC-4.0"
# Runs that started from runs: more of them are a ring.
_MAX_STEPS = 16


@dataclass(frozen=True, slots=True)
class Origin:
    """Where weights come from.

    `kind` is "published" (the authors'), "derived" (trained from the authors'), "own" (from
    scratch, as far as the checkpoints tell) or "unknown"; `start` is the file that tells, or does
    not.
    """

    kind: str
    start: str = ""

    @property
    def licence(self) -> str | None:
        """The licence that the authors' weights bring with them, or None."""
        return PUBLISHED_LICENCE if self.kind in ("published", "derived") else None


def origin_of(checkpoint: str, cfg: Config | None) -> Origin:
    """Say whose weights those of `checkpoint` (a published name, path or URL) are.

    `cfg` is that of the run that wrote it, None where no run's is known. Runs are followed back
    over TRAIN.CHECKPOINT_FILE_PATH as far as the files are at hand; nothing is downloaded.
    """
    if is_published(checkpoint):
        return Origin("published", os.path.basename(checkpoint))
    if cfg is None:
        return Origin("unknown", os.path.basename(checkpoint))
    start: str | None = cfg.TRAIN.CHECKPOINT_FILE_PATH
    for _ in range(_MAX_STEPS):
        if start is None or not start:
            break
        if is_published(start):
            return Origin("derived", os.path.basename(start))
        last, start = start, _start_of(start)
        if start is None:
            return Origin("unknown", os.path.basename(last))
    return Origin("own") if start == "" else Origin("unknown", os.path.basename(str(start)))


def is_published(checkpoint: str) -> bool:
    """Say whether a name, path or URL is that of one of the authors' files."""
    if checkpoint.startswith(HIERA_URL):
        return True
    models = [*public_functions(hiera), *public_functions(hiera_mae)]
    files = {key: file for model in models for key, file in published_files(model).items()}
    stems = {_stem(file) for model in models for file in published_files(model).values()}
    return checkpoint in files or (_stem(checkpoint) in stems and checkpoint != "")


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _start_of(path: str) -> str | None:
    """Return what the run that wrote a checkpoint started from ("": nothing), None: unknown."""
    if not (io.is_file(path) or sharded.is_folder(path)):
        return None
    try:
        text = read_checkpoint(path, key="checkpoint").get("cfg")
        saved = yaml.safe_load(text) if isinstance(text, str) else None
    except (UserError, yaml.YAMLError):
        return None
    section = saved.get("TRAIN") if isinstance(saved, dict) else None
    start = section.get("CHECKPOINT_FILE_PATH") if isinstance(section, dict) else None
    return start if isinstance(start, str) else None
