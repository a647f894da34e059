"""Find out whether a checkpoint's weights derive from the authors' published weights.

The licence of the published weights also covers weights that were trained from them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.files import HIERA_URL, read_checkpoint
from hiera_video.checkpoints.hub import WEIGHTS, is_pretrained_folder, read_facts
from hiera_video.checkpoints.published import published_files
from hiera_video.checkpoints.saved_config import saved_settings
from hiera_video.models import hiera, hiera_mae
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import public_functions

PUBLISHED_LICENCE = "CC-BY-NC-4.0"
# The key of the origin in a run's checkpoint.
KEY = "origin"
_KINDS = ("published", "derived", "own", "unknown")
# The longest chain of runs to follow. A longer one is taken to be a cycle.
_MAX_STEPS = 16


@dataclass(frozen=True, slots=True)
class Origin:
    """Where weights come from.

    `kind` is "published" (the authors'), "derived" (trained from the authors'), "own" (from
    scratch, as far as the checkpoints show) or "unknown". `start` is the file that decided this, or
    the file that left it open. `weights` is the path that the run itself started from: "" for fresh
    weights, None if unknown.
    """

    kind: str
    start: str = ""
    weights: str | None = None

    @property
    def licence(self) -> str | None:
        """The licence of the published weights if the origin involves them, else None."""
        return PUBLISHED_LICENCE if self.kind in ("published", "derived") else None

    def unused(self, named: str) -> str:
        """Return `named`, the weights in a config, if the run did not start from them, else ""."""
        return "" if self.weights is None or named == self.weights else named


def origin_of(checkpoint: str, start: str | None) -> Origin:
    """Return the origin of the weights in `checkpoint` (a published name, path or URL).

    The origin that the run saved in the file takes precedence. For a file of an earlier release,
    `start` names the weights that its run started from ("": from scratch; None: unknown). This
    function downloads nothing.
    """
    if is_published(checkpoint):
        return Origin("published", os.path.basename(checkpoint))
    if found := _beside(checkpoint) or _saved(_content(checkpoint)):
        return found
    if start is None or is_pretrained_folder(checkpoint):
        return Origin("unknown", os.path.basename(checkpoint))
    return origin_from(start)


def origin_from(start: str, content: Mapping[str, Any] | None = None) -> Origin:
    """Return the origin of the weights of a run that starts from `start` ("": from scratch).

    Runs of earlier releases saved no origin. For them, follow TRAIN.CHECKPOINT_FILE_PATH from file
    to file as far as the files exist. `content` is the content of `start` if it was already read.
    """
    weights, last = start, start
    for _ in range(_MAX_STEPS):
        if not start:
            return Origin("own", weights=weights)
        if is_published(start):
            return Origin("derived", os.path.basename(start), weights)
        content = _content(start) if content is None else content
        if found := _beside(start) or _saved(content):
            return replace(found, weights=weights)
        last, before, content = start, _start_in(content), None
        if before is None:
            break
        start = before
    return Origin("unknown", os.path.basename(last), weights)


def origin_of_content(content: Mapping[str, Any]) -> Origin:
    """Return the origin of the weights in a run's checkpoint, given its content.

    A checkpoint of an earlier release has no saved origin, so its config is used.
    """
    if found := _saved(content):
        return found
    start = _start_in(content)
    return Origin("unknown") if start is None else origin_from(start)


def _saved(content: Mapping[str, Any]) -> Origin | None:
    """Return the origin that a run saved in a checkpoint, or None."""
    saved = content.get(KEY)
    try:
        found = Origin(**saved) if isinstance(saved, dict) else None
    except TypeError:
        return None
    if found is None or found.kind not in _KINDS or not isinstance(found.start, str):
        return None
    return found if isinstance(found.weights, str | None) else None


def _beside(path: str) -> Origin | None:
    """Return the origin stated in an exported model's folder, None if `path` is not in one."""
    folder = os.path.dirname(path) if os.path.basename(path) == WEIGHTS else path
    if not is_pretrained_folder(folder):
        return None
    try:
        facts = read_facts(folder)
    except UserError:
        return None
    theirs = facts.get("licence") == PUBLISHED_LICENCE  # the form that earlier releases wrote
    return _saved(facts) or (Origin("derived", str(facts.get("checkpoint"))) if theirs else None)


def is_published(checkpoint: str) -> bool:
    """Return whether a name, path or URL refers to one of the authors' files."""
    if checkpoint.startswith(HIERA_URL):
        return True
    models = [*public_functions(hiera), *public_functions(hiera_mae)]
    files = {key: file for model in models for key, file in published_files(model).items()}
    stems = {_stem(file) for model in models for file in published_files(model).values()}
    return checkpoint in files or (_stem(checkpoint) in stems and checkpoint != "")


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _content(path: str) -> Mapping[str, Any]:
    """Return a checkpoint's content without reading its tensors; {} if it is not a checkpoint."""
    try:
        if distributed.is_folder(path):
            return distributed.read_plain(path, key="checkpoint")
        return read_checkpoint(path, key="checkpoint", mmap=True) if io.is_file(path) else {}
    except UserError:
        return {}


def _start_in(content: Mapping[str, Any]) -> str | None:
    """Return the starting weights in a checkpoint's config ("": from scratch; None: unknown)."""
    start = saved_settings(content.get("cfg")).get("TRAIN.CHECKPOINT_FILE_PATH")
    return start if isinstance(start, str) else None
