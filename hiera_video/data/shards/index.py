"""Read the contents of shards from their tar headers; store them as a json index for each split.

A shard is a tar file as the webdataset library writes it. The files of a sample are adjacent and
share their name up to the first dot, for example `000012.mp4` and `000012.cls`. One of them is the
video. The label is in `.cls`, or in `.json` as "label".
"""

import os
import re
import tarfile
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import simplejson

from hiera_video.data.prepare.folders import VIDEO_ENDINGS
from hiera_video.data.records import NO_LABEL, RecordError, open_text
from hiera_video.data.shards.members import Member
from hiera_video.utils.disk import write_atomic

VERSION = 1
HOLDS = 'an index of shards, {"version": 1, "shards": [{"file": ..., "samples": [...]}, ...]}'

_MAX_NOTE_BYTES = 1 << 20  # limit for a .cls or .json, which are read completely
_META = re.compile(r"__[^/]*__($|/)")  # webdataset's own metadata files
_WHOLE_NUMBER = re.compile(rb"\s*[+-]?[0-9]{1,9}\s*")


@dataclass(frozen=True, slots=True)
class ShardSample:
    """One video of a shard: its name, the place of its bytes, and its label or NO_LABEL."""

    name: str
    offset: int
    size: int
    label: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard and its samples. `file` is its path or URL, possibly relative to the index."""

    file: str
    samples: list[ShardSample]

    def members(self, location: str) -> list[Member]:
        """Return the videos as tar members of the shard at `location`."""
        return [Member(location, s.name, s.offset, s.size) for s in self.samples]


def shard_files(folder: str, split: str) -> list[str]:
    """Return the names of the shards of a split in a local folder, sorted by number."""
    pattern = re.compile(rf"{split}-([0-9]+)\.tar")
    try:
        found = [match for name in os.listdir(folder) if (match := pattern.fullmatch(name))]
    except OSError as error:
        raise RecordError(
            f"{folder} must be a folder that can be read, got: {error.strerror}."
        ) from None
    return [match[0] for match in sorted(found, key=lambda match: (int(match[1]), match[0]))]


def scan_shard(path: str, *, labelled: bool) -> tuple[list[ShardSample], list[str]]:
    """Read the headers of a local tar file; return its samples, and the problems of bad samples.

    A truncated shard yields the samples whose headers are present; the last one is incomplete.
    Raises RecordError if the file is missing or not a tar file.
    """
    samples: list[ShardSample] = []
    problems: list[str] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for group in _groups(tar):
                sample = _sample(tar, group, labelled=labelled)
                if isinstance(sample, ShardSample):
                    samples.append(sample)
                elif sample:
                    problems.append(f"{path}: sample {group['__key__']!r}: {sample}")
    except ValueError as error:  # webdataset raises this for two files of the same name
        problems.append(f"{path}: {error}")
    except tarfile.TarError as error:
        raise RecordError(f"{path} must be a tar file, uncompressed, got: {error}.") from None
    except OSError as error:
        raise RecordError(f"{path} must be readable, got: {error.strerror or error}.") from None
    return samples, problems


def _groups(tar: tarfile.TarFile) -> Iterator[dict[str, Any]]:
    """Yield each sample as webdataset groups it: tar headers by ending, and "__key__"."""
    from webdataset.tariterators import group_by_keys

    def files() -> Iterator[dict[str, Any]]:
        members = iter(tar)
        while True:
            try:
                member = next(members, None)
            except tarfile.ReadError:
                return  # truncated here
            if member is None:
                return
            if member.isreg() and not _META.match(member.name):
                yield {"fname": member.name, "data": member, "__url__": tar.name}

    yield from group_by_keys(files())


def _sample(tar: tarfile.TarFile, group: dict[str, Any], *, labelled: bool) -> ShardSample | str:
    """Return the sample, or its problem in words; "" if the group belongs to no video."""
    videos = _ending_with(VIDEO_ENDINGS, group)
    for member in group.values():
        if isinstance(member, tarfile.TarInfo) and member.issparse():
            # A few kilobytes in the shard can expand to any size, and are not contiguous.
            return f"must be stored whole, got {member.name} sparse. Try tar without --sparse."
    if len(videos) > 1:
        names = ", ".join(sorted(member.name for member in videos))
        return f"must have one video, got {names}."
    label: int | str = _label(tar, group) if labelled else NO_LABEL
    if not videos:
        return "must have a video, got none." if labelled and isinstance(label, int) else ""
    if isinstance(label, str):
        return label
    return ShardSample(videos[0].name, videos[0].offset_data, videos[0].size, label)


def _ending_with(endings: Container[str], group: dict[str, Any]) -> list[tarfile.TarInfo]:
    # For webdataset the ending starts after the first dot: "clip.v1.mp4" has "v1.mp4".
    return [group[key] for key in group if f".{key.rpartition('.')[2]}" in endings]


def _label(tar: tarfile.TarFile, group: dict[str, Any]) -> int | str:
    notes = _ending_with({".cls", ".json"}, group)
    if any(member.size > _MAX_NOTE_BYTES for member in notes):
        return f"its .cls and .json must be at most {_MAX_NOTE_BYTES} bytes."
    for member in _ending_with({".cls"}, group):
        text = _content(tar, member)
        if _WHOLE_NUMBER.fullmatch(text):
            return int(text)
        return f"the label in .cls must be a whole number, got {text[:40]!r}."
    for member in _ending_with({".json"}, group):
        try:
            content = simplejson.loads(_content(tar, member))
        except (ValueError, RecursionError):  # broken, or nested too deeply
            return "its .json must be json."
        label = content.get("label") if isinstance(content, dict) else None
        if isinstance(label, int) and not isinstance(label, bool):
            return label
        return f'its .json must hold a whole number as "label", got {label!r}.'
    return "must have a label in .cls or .json, got none."


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        file = tar.extractfile(member)
        return file.read() if file else b""
    except tarfile.ReadError:
        return b""


def write_index(path: str, shards: list[Shard]) -> None:
    """Write the index of a split atomically."""
    listed = [
        {"file": s.file, "samples": [[x.name, x.offset, x.size, x.label] for x in s.samples]}
        for s in shards
    ]
    text = simplejson.dumps({"version": VERSION, "shards": listed}, separators=(",", ":"))
    write_atomic(path, lambda file: file.write(text.encode()))


def read_index(path: str) -> list[Shard]:
    """Read the index of a split; raises RecordError if the file has another structure."""
    try:
        with open_text(path) as text:
            content = simplejson.load(text)
    except simplejson.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}: must be json, got {error.msg}.") from None
    except (ValueError, RecursionError):  # not UTF-8, nested too deeply, numbers of 4,301 digits
        raise RecordError(f"{path} must be json in UTF-8, got something else.") from None
    if not isinstance(content, dict) or not isinstance(content.get("shards"), list):
        raise RecordError(f"{path} must hold {HOLDS}, got something else.")
    if content.get("version") != VERSION:
        raise RecordError(
            f"{path} must be of version {VERSION}, got {content.get('version')!r}. Try "
            "tools/make_shards.py --index-of."
        )
    return [_read_shard(path, place, shard) for place, shard in enumerate(content["shards"])]


def _read_shard(path: str, place: int, shard: Any) -> Shard:
    try:
        file = shard["file"]
        samples = [ShardSample(*row) for row in shard["samples"]]
        whole = all(
            type(s.offset) is type(s.size) is type(s.label) is int and isinstance(s.name, str)
            for s in samples
        )
        if isinstance(file, str) and whole:
            return Shard(file, samples)
    except (TypeError, KeyError):
        pass
    raise RecordError(
        f'{path}: shard {place} must be {{"file": ..., "samples": [[name, offset, size, label], '
        "...]}, got something else."
    )
