"""The record in a folder of demo data: its parameters, and the files that belong to it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import IO

from hiera_video.data.synthetic.motion import MOTIONS
from hiera_video.utils.disk import write_atomic
from hiera_video.utils.errors import UserError
from hiera_video.utils.read_json import parse_json

MANIFEST = "demo_data.json"
SPLITS = ("train", "val")
# List file -> the split it lists. No choice depends on the validation videos, so they serve as
# test videos as well.
LISTS = {"train.csv": "train", "val.csv": "val", "test.csv": "val"}
CLASSES = "classes.txt"


@dataclass(frozen=True, slots=True)
class DemoParameters:
    """The parameters of the demo data; equal parameters give the same bytes in every file.

    `size` is the side in pixels (even, at least 16), `num_frames` the frames of each video (at
    least 2). `version` is that of the generator; raise it when the generated pixels change.
    """

    num_train_per_class: int = 200
    num_val_per_class: int = 40
    size: int = 72
    num_frames: int = 24
    seed: int = 0
    version: int = 3

    def check(self) -> None:
        """Raise a UserError that names the option that is out of range."""
        for option, value, least in (
            ("--num-train-per-class", self.num_train_per_class, 1),
            ("--num-val-per-class", self.num_val_per_class, 1),
            ("--size", self.size, 16),
            ("--frames", self.num_frames, 2),
            ("--seed", self.seed, 0),
        ):
            if value < least:
                raise UserError(f"{option} must be at least {least}, got {value}. Try {least}.")
        if self.size % 2:
            raise UserError(
                "--size must be even, since H.264 halves the resolution of colour, "
                f"got {self.size}. Try {self.size + 1}."
            )


@dataclass(frozen=True, slots=True)
class Video:
    """One video of the set: its path in the folder, split, class, and number within both."""

    path: str
    split: str
    motion: str
    number: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record in a folder of demo data; `complete` is False while it is being written."""

    parameters: dict[str, int]
    classes: list[str]
    complete: bool
    num_bytes: int

    def videos(self) -> Iterator[Video]:
        """Yield all videos of the set, split by split, cycling through the classes."""
        for split in SPLITS:
            count = self.parameters[f"num_{split}_per_class"]
            for number, motion in product(range(count), self.classes):
                yield Video(f"{split}/{motion}/{number:05d}.mp4", split, motion, number)

    def paths(self) -> set[str]:
        """Return the paths of all files of the set except the manifest, relative to its folder."""
        return {video.path for video in self.videos()} | {*LISTS, CLASSES}


def new_manifest(parameters: DemoParameters, *, complete: bool, num_bytes: int) -> Manifest:
    """Return the manifest of a dataset with these parameters."""
    return Manifest(asdict(parameters), list(MOTIONS), complete, num_bytes)


def read_manifest(root: Path) -> Manifest | None:
    """Read the manifest in `root`; None if there is none. Raises UserError for an invalid one."""
    path = root / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = Manifest(**parse_json(path.read_text(encoding="utf-8")))
        manifest.paths()
        # Class names become paths of files that may be removed. None may lead out of `root`.
        valid = all(name.isidentifier() for name in manifest.classes)
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise UserError(
            f"{path} must be a record of demo data, got something else. Try another folder."
        )
    return manifest


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest into `root`, atomically."""
    write_text(root / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, atomically."""

    def write(file: IO[bytes]) -> None:
        file.write(text.encode("utf-8"))

    write_atomic(str(path), write)


def is_complete(root: Path, found: Manifest | None, parameters: DemoParameters) -> bool:
    """Return whether `root` holds the complete dataset with these parameters."""
    return (
        found is not None
        and found.complete
        and found.parameters == asdict(parameters)
        and all((root / path).is_file() for path in found.paths())
    )


def refuse_what_is_not_ours(
    root: Path, found: Manifest | None, parameters: DemoParameters, *, overwrite: bool
) -> None:
    """Raise a UserError if writing would replace foreign files, or other data without `overwrite`.

    Foreign files are those that this module did not write.
    """
    wanted = new_manifest(parameters, complete=False, num_bytes=0)
    if found is not None and found.parameters != wanted.parameters and not overwrite:
        differences = ", ".join(
            f"{name} {found.parameters.get(name)} (asked for: {wanted.parameters.get(name)})"
            for name in sorted(wanted.parameters.keys() | found.parameters.keys())
            if found.parameters.get(name) != wanted.parameters.get(name)
        )
        raise UserError(
            f"OUTPUT_DIR must be new or hold demo data with the same parameters, got {root} with "
            f"{differences}. Try --overwrite or another folder."
        )
    ours = set() if found is None else found.paths()
    foreign = [path for path in sorted(wanted.paths() - ours) if (root / path).exists()]
    if foreign:
        raise UserError(
            f"OUTPUT_DIR must be new or hold demo data alone, got {root} with {foreign[0]}, "
            "which was not made here. Try another folder."
        )
