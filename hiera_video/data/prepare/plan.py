"""Plan the outputs: one per source file, and none in place of a source."""

import hashlib
import os
import re
from collections import defaultdict
from dataclasses import dataclass, replace

from hiera_video.data.prepare.folders import Entry, Source
from hiera_video.utils.errors import UserError

VIDEOS = "videos"  # the folder of the prepared videos in OUTPUT

# Characters that would end a line of a list, or that UTF-8 cannot encode.
_UNFIT = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Job:
    """One file to write; `output` is relative to OUTPUT, with forward slashes."""

    source: str
    output: str


def plan_jobs(source: Source, output: str) -> list[Job]:
    """Return one job for each distinct file of `source`, in order.

    The path of an output in `videos/` is that of its source in `source.root`, with the ending
    .mp4. If two sources would get the same name, such as a.avi and a.mp4, the latter keeps it and
    the former becomes a.avi.mp4. Raises UserError if an output would overwrite a source.
    """
    paths = list(dict.fromkeys(entry.path for entry in source.entries))
    wanted = {path: _stem(path, source.root) for path in paths}
    claims: dict[str, list[str]] = defaultdict(list)
    for path, (stem, _ending) in wanted.items():
        claims[stem.casefold()].append(path)
    taken: set[str] = set()
    names: dict[str, str] = {}
    # Name the sources that keep their name first, so that no other takes it.
    for path in sorted(paths, key=lambda path: (wanted[path][1] != ".mp4", path)):
        stem, ending = wanted[path]
        alone = len(claims[stem.casefold()]) == 1
        name = stem if alone or ending == ".mp4" else stem + ending
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        names[path] = f"{VIDEOS}/{name}.mp4"
    sources = {os.path.realpath(path) for path in paths}
    jobs = [Job(path, names[path]) for path in paths]
    for job in jobs:
        target = os.path.realpath(os.path.join(output, job.output))
        if target in sources:
            raise UserError(
                f"OUTPUT must not be where the source videos lie, got {output!r}: {job.output} "
                "would be written over one of them. Try another folder."
            )
    return jobs


def _stem(path: str, root: str) -> tuple[str, str]:
    """Return the path in `root` without its ending, with forward slashes, and the ending."""
    inside = os.path.relpath(path, root)
    if inside.startswith(os.pardir):
        inside = os.path.splitdrive(os.path.abspath(path))[1].lstrip(os.sep)
    stem, ending = os.path.splitext(inside.replace(os.sep, "/"))
    return _UNFIT.sub("_", stem), ending


def is_listable(path: str) -> bool:
    """Return whether a line of a list can hold this path."""
    return not _UNFIT.search(path)


def split_off_val(source: Source, share: float) -> None:
    """Move a fraction `share` of each class's training videos to val, chosen by hashed name.

    The same names give the same choice, on every machine and in any order. Raises UserError for a
    share outside ]0, 1[, and for a source that already has a val split.
    """
    if not 0 < share < 1:
        raise UserError(f"--val-share must be between 0 and 1, got {share}. Try 0.1.")
    if "val" in source.splits():
        raise UserError("--val-share must go with a SOURCE that has no val split of its own.")
    by_class: dict[str | int | None, list[Entry]] = defaultdict(list)
    for entry in source.entries:
        if entry.split == "train":
            by_class[entry.label].append(entry)
    chosen = set()
    for entries in by_class.values():
        paths = sorted({entry.path for entry in entries}, key=lambda p: _hash(p, source.root))
        chosen.update(paths[: round(share * len(paths))])
    source.entries = [
        replace(entry, split="val") if entry.split == "train" and entry.path in chosen else entry
        for entry in source.entries
    ]


def _hash(path: str, root: str) -> str:
    name = os.path.relpath(path, root).replace(os.sep, "/")
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
