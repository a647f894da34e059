"""Describe a list of videos in figures: its classes, its hash, and the results of decoding."""

import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hiera_video.data.checks.known_lists import compare_with_known
from hiera_video.data.records import NO_LABEL, VideoRecord
from hiera_video.utils import io
from hiera_video.utils.read_json import parse_json

VERSION = 1
_HASH_DIGITS = 16
_SHOWN_CLASSES = 5

# Lower ends of the histograms' bins; the last one is open.
SHORT_SIDE_PX = (0, 128, 224, 256, 320, 480, 720, 1080)
LENGTH_SEC = (0, 1, 2, 3, 5, 8, 11, 15, 30, 60)
FRAMES = (0, 2, 16, 32, 64, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """Properties of one decoded video: upright width and height, length (None if unknown).

    `is_short`: the video has fewer frames than a clip needs, so the clip repeats the last one.
    """

    num_frames: int
    length_sec: float | None
    width: int
    height: int
    codec: str
    is_short: bool


@dataclass(frozen=True, slots=True)
class ListFacts:
    """Figures of a list's rows, found without opening a video; `per_class` counts by label."""

    num_videos: int
    per_class: dict[int, int]
    list_hash: str

    @property
    def is_labelled(self) -> bool:
        """Return whether the rows have labels."""
        return bool(self.per_class)

    def empty_classes(self) -> list[int]:
        """Return the classes without a row."""
        return [label for label, count in self.per_class.items() if count == 0]


def list_facts(records: Sequence[VideoRecord], num_classes: int) -> ListFacts:
    """Count the rows of each class in [0, num_classes), and hash the list; opens no file."""
    counts = Counter(record.label for record in records)
    counts.pop(NO_LABEL, None)
    labels = range(max(num_classes, *counts, 0) if counts else 0)
    per_class = {label: counts[label] for label in labels} | dict(sorted(counts.items()))
    return ListFacts(len(records), per_class, list_hash(records))


def list_hash(records: Sequence[VideoRecord]) -> str:
    """Return a hash of the paths, the labels and their order: 16 hexadecimal digits.

    The hash ignores the folder common to all videos. A copy of the data elsewhere, or the same
    list with absolute paths, therefore has the same hash.
    """
    # The common prefix of the smallest and the largest path is that of all paths.
    ends = [find((r.path for r in records), default="") for find in (min, max)]
    cut = os.path.commonprefix(ends).rfind("/") + 1  # noqa: RUF071 - cut at a slash
    digest = hashlib.sha256()
    for record in records:
        row = f"{record.path[cut:]}\0{record.label}\n"
        digest.update(row.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:_HASH_DIGITS]


def describe_records(records: Sequence[VideoRecord], num_classes: int) -> list[str]:
    """Return the lines that a run logs about a list: contents, empty classes, published size.

    Reads only the rows, about a second for 240,000 of them. Names the published size of
    Kinetics-400 or Something-Something v2 only if the number of classes is the same and the
    number of videos is similar.
    """
    facts = list_facts(records, num_classes)
    lines = [describe_list(facts)]
    if empty := facts.empty_classes():
        shown = ", ".join(map(str, empty[:_SHOWN_CLASSES]))
        more = ", ..." if len(empty) > _SHOWN_CLASSES else ""
        lines.append(f"{len(empty)} of {len(facts.per_class)} classes have no video: {shown}{more}")
    return lines + compare_with_known(facts.num_videos, num_classes)


def describe_list(facts: ListFacts) -> str:
    """Describe the list in one line."""
    if not facts.is_labelled:
        return f"{facts.num_videos:,} videos without labels, list {facts.list_hash}"
    counts = list(facts.per_class.values())
    return (
        f"{facts.num_videos:,} videos of {len(counts)} classes ({min(counts):,} to "
        f"{max(counts):,} per class, median {statistics.median(counts):,g}), list {facts.list_hash}"
    )


def describe_check(folders: Iterable[str], split: str, records: Sequence[VideoRecord]) -> list[str]:
    """Return one line on what tools/check_data.py found in this list.

    Uses the first of `folders` that holds a fingerprint of the split; returns no line if none
    does. If the fingerprint belongs to another list or cannot be read, the line says so.
    """
    for folder in folders:
        path = fingerprint_path(folder, split)
        if not io.is_file(path):
            continue
        try:
            with io.open_file(path) as file:
                found = parse_json(file.read())
            rows, check = found["list"], found["check"]
            result = (
                f"{percent(check['share_decodable'])} of {rows['num_videos']:,} videos decodable, "
                f"{check['num_bad']:,} not"
            )
            if rows["hash"] == (now := list_hash(records)):
                return [f"checked before ({path}): {result}"]
            if rows["clean_hash"] == now:
                return [f"a list cleaned by tools/check_data.py ({path}): {result} and left out"]
            return [f"{path} is of another list ({rows['hash']}): not used"]
        except (OSError, ValueError, KeyError, TypeError):
            return [f"{path} cannot be read: not used"]
    return []


def fingerprint_path(folder: str, split: str) -> str:
    """Return the path of a split's fingerprint."""
    return os.path.join(folder, f"{split}_fingerprint.json")


def fingerprint(
    records: Sequence[VideoRecord],
    num_classes: int,
    facts_by_path: Mapping[str, VideoFacts | None],
    *,
    split: str,
    clean_hash: str,
    depth: str,
    backend: str,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the figures of a checked list as plain types.

    facts_by_path: the facts of each video, None for a bad one. Every row counts, so a video that
    is listed twice counts twice. The same list and the same videos give the same fingerprint at
    any time on any machine.
    """
    rows = list_facts(records, num_classes)
    good = [facts for r in records if (facts := facts_by_path[r.path]) is not None]
    lengths = [facts.length_sec for facts in good if facts.length_sec is not None]
    counts = list(rows.per_class.values())
    return {
        "version": VERSION,
        "split": split,
        "list": {
            "hash": rows.list_hash,
            "clean_hash": clean_hash,
            "num_videos": rows.num_videos,
            "num_classes": len(rows.per_class),
            "videos_per_class": summary(counts)
            | {"counts": {str(label): count for label, count in rows.per_class.items()}},
        },
        "check": {
            "depth": depth,
            "backend": backend,
            "num_decodable": len(good),
            "num_bad": rows.num_videos - len(good),
            "share_decodable": len(good) / rows.num_videos,
        },
        "videos": {
            "duration_sec": round(sum(lengths), 3),
            "num_without_duration": len(good) - len(lengths),
            "short_side_px": distribution([min(f.width, f.height) for f in good], SHORT_SIDE_PX),
            "length_sec": distribution(lengths, LENGTH_SEC),
            "frames": distribution([f.num_frames for f in good], FRAMES),
            "codecs": dict(Counter(f.codec for f in good).most_common()),
        },
        "notes": list(notes),
    }


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return minimum, median and maximum, each None if there are no values."""
    if not values:
        return {"min": None, "median": None, "max": None}
    three = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: round(value, 3) for name, value in three.items()}


def distribution(values: Sequence[float], edges: Sequence[int]) -> dict[str, Any]:
    """Return the summary and the histogram of `values`; bin k is [edges[k], edges[k + 1])."""
    ends = [*edges[1:], None]
    bins = [
        {
            "from": start,
            "below": end,
            "count": sum(start <= value and (end is None or value < end) for value in values),
        }
        for start, end in zip(edges, ends, strict=True)
    ]
    return {**summary(values), "histogram": bins}


def render(found: Mapping[str, Any]) -> str:
    """Return a fingerprint as a few lines of text."""
    check, videos, codecs = found["check"], found["videos"], found["videos"]["codecs"]
    hours = videos["duration_sec"] / 3600
    lines = [
        f"decodable   {percent(check['share_decodable'])}: {check['num_decodable']:,} of "
        f"{found['list']['num_videos']:,}",
        f"duration    {hours:,.1f} h" if hours >= 1 else f"duration    {hours * 3600:,.1f} s",
        _rendered("short side", videos["short_side_px"], "px"),
        _rendered("length", videos["length_sec"], "s"),
        _rendered("frames", videos["frames"], ""),
        "codecs      " + ", ".join(f"{name} {count:,}" for name, count in codecs.items()),
    ]
    return "\n".join(lines if check["num_decodable"] else lines[:1])


def percent(share: float) -> str:
    """Format a fraction in percent: 100 % only if it is exactly 1, 0 % only if exactly 0."""
    digits = next((n for n in (1, 2, 3) if 0 < round(100 * share, n) < 100), 1)
    if share in (0, 1):
        digits = 0
    return f"{100 * share:.{digits}f} %"


def _rendered(name: str, values: Mapping[str, Any], unit: str) -> str:
    bins = [
        f"{bin_['from']}{'+' if bin_['below'] is None else '-' + str(bin_['below'])}: "
        f"{bin_['count']:,}"
        for bin_ in values["histogram"]
        if bin_["count"]
    ]
    if not bins:
        return f"{name:<11} unknown"
    low, median, high = (f"{values[name]:g}" for name in ("min", "median", "max"))
    three = low if low == high else f"{low} to {high}, median {median}"
    return f"{name:<11} {f'{three} {unit}'.rstrip()} ({', '.join(bins)})"
