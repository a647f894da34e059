"""Write a data set as tar shards: plan them from the file sizes, then write each one atomically.

A shard file is always complete, and its contents depend only on the list. So an interrupted run can
resume where it stopped. The index is written last and marks the split as complete.
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

# A tar header stores 100 bytes of a name. The number, dots and the ending need some of them.
_STEM_BYTES = 64


@dataclass(frozen=True, slots=True)
class Planned:
    """A video to write into a shard: its record, its size, and the key of its sample."""

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
    """The planned shards of a split by file name, and the videos left out, with reasons."""

    shards: dict[str, list[Planned]]
    left_out: list[tuple[str, str]]

    @property
    def num_bytes(self) -> int:
        """The total size of all planned videos."""
        return sum(video.num_bytes for videos in self.shards.values() for video in videos)


def plan_shards(records: Sequence[VideoRecord], split: str, *, shard_bytes: int, seed: int) -> Plan:
    """Assign the videos to shards of about `shard_bytes`.

    Training videos are shuffled with `seed`, so that every shard is a random sample of the classes.
    Other splits keep the order of the list. A video is left out if it is missing, empty or has no
    ending of a video.
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
    """Plan one video from its path and size, or return the reason to leave it out."""
    member = parse_member(record.path)
    stem, ending = os.path.splitext(os.path.basename(member.name if member else record.path))
    if ending.lower() not in VIDEO_ENDINGS:
        return f"is not named like a video: its ending is {ending!r}."
    try:
        size = member.size if member else os.stat(fetch_file(record.path)).st_size
    except DecodeError as error:
        return error.cause
    # The key of a sample starts with a unique number. It holds no dot, which would end it.
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
    """Write the missing shards, then the index; return (path, reason) of each bad video.

    Each video is opened but not decoded, so this does not check its frames. A video that cannot be
    opened is left out. The `.json` of a sample stores the path of its video as "source", relative
    to `data_dir` if it lies there. `progress` is called with the size of each video. Raises
    UserError if the folder has an index or other shards of the split, or cannot be written to.
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
            for video in videos:
                if video.name not in there:
                    content = _read(video)
                    bad.append((video.record.path, content if isinstance(content, str) else ""))
            progress(sum(video.num_bytes for video in videos))
        shards.append(Shard(name, samples))
    if not any(shard.samples for shard in shards):
        raise UserError(f"the {split} split must have a video that can be opened, got none.")
    make_index(folder, split, shards)
    return bad


def make_index(folder: str, split: str, shards: list[Shard]) -> str:
    """Write the index of a split's shards; return its path. Raises UserError if writing fails."""
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
    """Read the samples of a shard; raises UserError if one of them is not from `videos`."""
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
    """Yield samples for webdataset from the videos that can be opened; append others to `bad`."""
    for video in videos:
        content = _read(video)
        if isinstance(content, str):
            bad.append((video.record.path, content))
        else:
            yield _sample(video, content, data_dir)
        progress(video.num_bytes)


def _read(video: Planned) -> bytes | str:
    """Open a video to check it; return its bytes, or the reason to leave it out."""
    try:
        with open_video(video.record.path) as reader, open(reader.file, "rb") as file:
            content = file.read()
    except DecodeError as error:
        return error.cause
    if len(content) != video.num_bytes:
        return "was changed while the shards were written."
    return content


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
    # mtime=0: the same videos give the same bytes at any time.
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
