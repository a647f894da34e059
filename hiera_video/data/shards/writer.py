"""A data set into tar shards: planned from the sizes of its files, each shard written at once.

A shard is there whole or not at all, and what it holds follows from the list alone. So a run that
was stopped goes on where it stopped, and an index is written last, as the sign that all is there.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

import simplejson
import webdataset

from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.decoders._reader import fetch_file
from hiera_video.data.prepare.folders import VIDEO_ENDINGS
from hiera_video.data.records import NO_LABEL, VideoRecord
from hiera_video.data.shards.index import (
    Shard,
    ShardSample,
    scan_shard,
    shard_files,
    write_index,
)
from hiera_video.data.shards.members import parse_member
from hiera_video.utils.disk import write_atomic
from hiera_video.utils.errors import UserError
from hiera_video.utils.seed import rng_for

# A tar header holds 100 bytes of a name; the number, dots and the ending want some of them.
_STEM_BYTES = 64


@dataclass(frozen=True, slots=True)
class Planned:
    """A video that is to go into a shard: its record, its size, and the name of its sample."""

    record: VideoRecord
    num_bytes: int
    key: str
    ending: str

    @property
    def name(self) -> str:
        """The name of the video in the shard."""
        return f"{self.key}.{self.ending}"


@dataclass(slots=True)
class Plan:
    """The shards of a split by file name, and the videos that cannot go in, with reasons."""

    shards: dict[str, list[Planned]]
    left_out: list[tuple[str, str]]

    @property
    def num_bytes(self) -> int:
        """The bytes of all videos."""
        return sum(video.num_bytes for videos in self.shards.values() for video in videos)


def plan_shards(records: Sequence[VideoRecord], split: str, *, shard_bytes: int, seed: int) -> Plan:
    """Share the videos out over shards of about `shard_bytes`.

    Training videos are shuffled (by `seed`), so that a shard is a fair sample of the classes; the
    others keep the order of the list. A video that is missing, empty or not named like a video is
    left out.
    """
    order: Iterable[int] = range(len(records))
    if split == "train":
        order = rng_for("shards", seed).permutation(len(records)).tolist()
    plan = Plan({}, [])
    planned: list[Planned] = []
    filled = 0
    for place in order:
        video = _look_at(records[place])
        if isinstance(video, str):
            plan.left_out.append((records[place].path, video))
            continue
        if planned and filled + video.num_bytes > shard_bytes:
            plan.shards[f"{split}-{len(plan.shards):06d}.tar"] = planned
            planned, filled = [], 0
        planned.append(video)
        filled += video.num_bytes
    if planned:
        plan.shards[f"{split}-{len(plan.shards):06d}.tar"] = planned
    return plan


def _look_at(record: VideoRecord) -> Planned | str:
    """Return what is to be known of a video before it is read, or why it cannot go in."""
    member = parse_member(record.path)
    stem, ending = os.path.splitext(os.path.basename(member.name if member else record.path))
    if ending.lower() not in VIDEO_ENDINGS:
        return f"is not named like a video: its ending is {ending!r}."
    try:
        size = member.size if member else os.stat(fetch_file(record.path)).st_size
    except DecodeError as error:
        return error.cause
    # A sample's name ends at the first dot, and begins with a number that no other has.
    plain = re.sub(r"[^\w -]", "_", stem).encode("utf-8", "replace")[:_STEM_BYTES]
    key = f"{record.video_index:08d}_{plain.decode('utf-8', 'ignore')}".rstrip("_ ")
    return Planned(record, size, key, ending.lower()[1:])


def write_shards(
    plan: Plan,
    folder: str,
    split: str,
    *,
    data_dir: str = "",
    progress: Callable[[int], object] = lambda num_bytes: None,
) -> list[tuple[str, str]]:
    """Write the shards that are not there yet, then the index; return (path, reason) of bad videos.

    Each video is opened, and one that cannot be is left out; but it is not decoded, so that this is
    no check of all of it. In a shard the path of a video, relative to `data_dir` where it lies
    there, stands as "source" in `.json`. `progress` is called with the bytes of each video. Raises
    UserError for a folder with an index or other shards of the split, or that cannot be written to.
    """
    _refuse_others(plan, folder, split)
    bad = list(plan.left_out)
    shards: list[Shard] = []
    for name, videos in plan.shards.items():
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            good = _good(videos, bad, data_dir=data_dir, progress=progress)
            _write(path, partial(_fill, samples=good))
            samples = _samples_of(path, videos)
        else:
            samples = _samples_of(path, videos)
            there = {sample.name for sample in samples}
            lacking = [video for video in videos if video.name not in there]
            bad += [(video.record.path, _why_bad(video)) for video in lacking]
            progress(sum(video.num_bytes for video in videos))
        shards.append(Shard(name, samples))
    if not any(shard.samples for shard in shards):
        raise UserError(f"the {split} split must have a video that can be opened, got none.")
    make_index(folder, split, shards)
    return bad


def make_index(folder: str, split: str, shards: list[Shard]) -> str:
    """Write the index of a split's shards; return its path. Raises UserError where it cannot."""
    path = os.path.join(folder, f"{split}.json")
    try:
        write_index(path, shards)
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


def _refuse_others(plan: Plan, folder: str, split: str) -> None:
    index = f"{split}.json"
    if os.path.exists(os.path.join(folder, index)):
        raise UserError(
            f"--output must be a folder without shards of {split}, got {folder!r}, which has "
            f"{index}. Try another folder, or remove that file to have it made again."
        )
    others = [name for name in shard_files(folder, split) if name not in plan.shards]
    if others:
        raise _other_shard(os.path.join(folder, others[0]))


def _samples_of(path: str, videos: Sequence[Planned]) -> list[ShardSample]:
    """Return what a shard holds; raises UserError if that is not from among `videos`."""
    labelled = videos[0].record.label != NO_LABEL
    expected = {video.name: (video.num_bytes, video.record.label) for video in videos}
    samples, problems = scan_shard(path, labelled=labelled)
    if problems or any(expected.get(s.name) != (s.size, s.label) for s in samples):
        raise _other_shard(path)
    return samples


def _other_shard(path: str) -> UserError:
    return UserError(
        f"{path} must be a shard that the same command wrote, got other videos, sizes or labels. "
        "Try another --output, or remove it."
    )


def _good(
    videos: Sequence[Planned],
    bad: list[tuple[str, str]],
    *,
    data_dir: str,
    progress: Callable[[int], object],
) -> Iterator[dict[str, str | bytes]]:
    """Yield the samples of the videos that can be opened, as webdataset writes them."""
    for video in videos:
        content = _read(video)
        if isinstance(content, str):
            bad.append((video.record.path, content))
        else:
            yield _sample(video, content, data_dir)
        progress(video.num_bytes)


def _read(video: Planned) -> bytes | str:
    """Open a video as a check and return its bytes, or the reason why it cannot go into a shard."""
    try:
        with open_video(video.record.path) as reader, open(reader.file, "rb") as file:
            content = file.read()
    except DecodeError as error:
        return error.cause
    if len(content) != video.num_bytes:
        return "was changed while the shards were written."
    return content


def _why_bad(video: Planned) -> str:
    content = _read(video)
    return content if isinstance(content, str) else ""


def _sample(video: Planned, content: bytes, data_dir: str) -> dict[str, str | bytes]:
    path, label = video.record.path, video.record.label
    root = os.path.join(os.path.abspath(data_dir), "") if data_dir else ""
    is_inside = bool(root) and path.startswith(root)
    notes: dict[str, str | int] = {
        "source": path[len(root) :] if is_inside else os.path.basename(path)
    }
    sample: dict[str, str | bytes] = {"__key__": video.key, video.ending: content}
    if label != NO_LABEL:
        notes["label"] = label
        sample["cls"] = str(label).encode()
    return {**sample, "json": simplejson.dumps(notes).encode()}


def _fill(file: IO[bytes], *, samples: Iterable[dict[str, str | bytes]]) -> None:
    # The same videos give the same bytes, whenever they are written.
    with webdataset.TarWriter(file, encoder=False, compress=False, mtime=0) as tar:
        for sample in samples:
            tar.write(sample)


def _write(path: str, write: Callable[[IO[bytes]], object]) -> None:
    try:
        write_atomic(path, write)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: str, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written ({error.strerror or error}). Try another --output.")
