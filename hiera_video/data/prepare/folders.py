"""Find videos in folders: with class folders, with split folders, or with neither."""

import os
import shlex
from contextlib import suppress
from dataclasses import dataclass, field

from hiera_video.data.records import SPLITS
from hiera_video.utils.errors import UserError

_VIDEO_ENDINGS = "3gp asf avi divx flv gif m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"
VIDEO_ENDINGS = frozenset(f".{ending}" for ending in _VIDEO_ENDINGS.split())
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One listed video: its file, its split, and its class (a name, a number, or None)."""

    path: str
    split: str
    label: str | int | None


@dataclass(slots=True)
class Source:
    """The videos to prepare.

    kind: the form of the source, in words. root: the folder that names of outputs are relative to.
    class_names: class names by number, if the source numbers and names its classes itself, those
    without a video included. lacking: (path, reason) of each video that cannot be prepared.
    list_files: the csv and json files read.
    """

    kind: str
    root: str
    entries: list[Entry] = field(default_factory=list)
    class_names: list[str] | None = None
    lacking: list[tuple[str, str]] = field(default_factory=list)
    list_files: list[str] = field(default_factory=list)

    def splits(self) -> list[str]:
        """Return the splits that have a video, in the order train, val, test."""
        present = {entry.split for entry in self.entries}
        return [split for split in SPLITS if split in present]

    def describe(self) -> str:
        """Return a line: how the source was read, and the number of videos per split."""
        counts = [
            f"{split} {sum(entry.split == split for entry in self.entries)}"
            for split in self.splits()
        ]
        lacking = f", {len(self.lacking)} lacking" if self.lacking else ""
        return f"Read {self.kind}: {', '.join(counts) or 'no videos'}{lacking}"


def suggest_preparing(data_dir: str) -> str:
    """Return advice for a data folder with videos or official lists, but without our lists.

    The advice is a sentence that names the command; "" if the folder has neither.
    """
    lists, options = [], ""
    with suppress(OSError):  # no advice about what cannot be read
        files = [data_dir]
        if os.path.isdir(data_dir):
            files = [os.path.join(data_dir, name) for name in sorted(os.listdir(data_dir))]
        lists = [file for file in files if is_official_list(file)]
    if lists:
        options = " --videos FOLDER_OF_VIDEOS"
    elif not os.path.isdir(data_dir) or not _holds_videos(data_dir):
        return ""
    source = " ".join(map(shlex.quote, lists or [data_dir]))
    return (
        f"Try `python tools/prepare_videos.py {source} OUTPUT{options}` (with --lists-only to keep "
        "the videos as they are), and OUTPUT as DATA.PATH_TO_DATA_DIR."
    )


def is_official_list(file: str) -> bool:
    """Return whether a file is an official csv list of Kinetics, judged by its first line."""
    if not file.lower().endswith(".csv") or not os.path.isfile(file):
        return False
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        return is_official_header(lines.readline(1000))


def is_official_header(line: str) -> bool:
    """Return whether a line is the header of an official csv list of Kinetics."""
    return "youtube_id" in [name.strip().strip('"') for name in line.lower().split(",")]


def _holds_videos(folder: str) -> bool:
    """Return whether a folder holds a video, at most two levels deep."""
    depth = folder.rstrip(os.sep).count(os.sep)
    for path, folders, files in os.walk(folder):
        if any(name.lower().endswith(tuple(VIDEO_ENDINGS)) for name in files):
            return True
        if path.count(os.sep) >= depth + 2:
            folders.clear()
    return False


def read_folder(root: str, output: str) -> Source:
    """Read a folder of split folders, of class folders, or of plain videos, skipping `output`.

    Split folders are named train, val, test or a variant (validation). They hold class folders or
    plain videos. Hidden files (.name) are skipped. Raises UserError for a folder that cannot be
    read.
    """
    skip = os.path.realpath(output) if output else None
    if skip == os.path.realpath(root):
        skip = None
    inside = [name for name in _names(root) if os.path.isdir(os.path.join(root, name))]
    inside = [name for name in inside if os.path.realpath(os.path.join(root, name)) != skip]
    splits = {name: SPLIT_NAMES[name.lower()] for name in inside if name.lower() in SPLIT_NAMES}
    if splits and (len(splits) == len(inside) or _holds_folders_alone(root, splits)):
        source = Source("train, val and test folders", root)
        for name, split in splits.items():
            _read_classes(source, os.path.join(root, name), split, skip)
        return source
    source = Source("class folders", root)
    _read_classes(source, root, "train", skip)
    if source.entries and all(entry.label is None for entry in source.entries):
        source.kind = "a folder without classes"
    return source


def _holds_folders_alone(root: str, splits: dict[str, str]) -> bool:
    # A class may be called "train", but its folder holds videos directly.
    train = next((name for name, split in splits.items() if split == "train"), None)
    if train is None:
        return False
    folder = os.path.join(root, train)
    paths = [os.path.join(folder, name) for name in _names(folder)]
    return any(map(os.path.isdir, paths)) and not any(map(_is_video, paths))


def _read_classes(source: Source, folder: str, split: str, skip: str | None) -> None:
    """Add the videos of `folder`, whose sub-folders are classes."""
    loose = [path for name in _names(folder) if _is_video(path := os.path.join(folder, name))]
    found = len(source.entries)
    for name in _names(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            videos = videos_in(path, skip=skip)
            source.entries.extend(Entry(video, split, name) for video in videos)
    if len(source.entries) > found:
        reason = "lies beside the class folders, not in one"
        source.lacking.extend((path, reason) for path in loose)
    else:
        source.entries.extend(Entry(path, split, None) for path in loose)


def videos_in(folder: str, *, skip: str | None = None) -> list[str]:
    """Return all videos below `folder`, sorted. Links are followed, each folder is read once."""
    found: list[str] = []
    been = set()
    for path, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        if (real := os.path.realpath(path)) in been or real == skip:
            folders.clear()
            continue
        been.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (os.path.join(path, name) for name in files if not name.startswith("."))
        found.extend(filter(_is_video, paths))
    return sorted(found)


def _names(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        _refuse(error)
        raise


def _refuse(error: OSError) -> None:
    raise UserError(
        f"{error.filename} must be a folder that can be read, got: {error.strerror}."
    ) from None


def _is_video(path: str) -> bool:
    is_named_so = os.path.splitext(path)[1].lower() in VIDEO_ENDINGS
    return is_named_so and not os.path.isdir(path)
