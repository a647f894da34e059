"""Read the videos to prepare, with split and class, from any of the supported forms of listing.

`read_source` recognises the form: Something-Something's json files, csv files (`path label`, or
the official ones of Kinetics), or folders (train/ val/ test/ with class folders, class folders
alone, or no folders at all).
"""

import csv
import os
from collections.abc import Iterator

from hiera_video.data.datasets import kinetics, ssv2
from hiera_video.data.prepare.folders import (
    SPLIT_NAMES,
    VIDEO_ENDINGS,
    Entry,
    Source,
    is_official_list,
    read_folder,
    videos_in,
)
from hiera_video.data.prepare.journal import JOURNAL
from hiera_video.data.records import NO_LABEL, SPLITS, RecordError
from hiera_video.utils.errors import UserError

_SSV2_FILES = ("labels.json", "train.json", "validation.json")
_SSV2_PREFIX = "something-something-v2-"


def read_source(paths: list[str], *, videos: str = "", output: str = "") -> Source:
    """Read one folder, or one or more csv or json files.

    `videos` is the folder of the videos that a list names (default: the folder of the list; for
    Something-Something its own folder of videos). Everything in `output` is skipped; if `output`
    is the folder itself, the lists that an earlier run wrote there are skipped. Raises UserError
    if a path is missing or its form is unknown, and RecordError for invalid lines.
    """
    for path in paths:
        if not os.path.exists(path):
            raise UserError(
                f"SOURCE must be a folder, a csv or a json file, got {path!r}, which "
                "does not exist."
            )
    if videos and not os.path.isdir(videos):
        raise UserError(f"--videos must be the folder of the videos, got {videos!r}.")
    # Absolute, so that a run from another working directory recognises the files.
    paths, videos = [os.path.abspath(path) for path in paths], videos and os.path.abspath(videos)
    folders = [path for path in paths if os.path.isdir(path)]
    if folders and len(paths) > 1:
        raise UserError(
            f"SOURCE must be one folder, or one or more files, got {len(paths)} with the folder "
            f"{folders[0]!r}. Try each folder by itself."
        )
    files = _list_files(folders[0], output) if folders else paths
    if any(file.endswith(".json") for file in files):
        source = _read_ssv2(files, videos)
    elif files:
        source = _read_csvs(files, videos, output)
    else:
        source = read_folder(folders[0], output)
    source.list_files = files
    if not source.entries and not source.lacking:
        raise UserError(
            f"SOURCE must hold videos, got none in {paths[0]!r}. Looked for files that end in "
            f"{' '.join(sorted(VIDEO_ENDINGS))}."
        )
    return source


def _list_files(folder: str, output: str) -> list[str]:
    """Return the list files of a folder: Something-Something's, or csv files named by split."""
    wanted = [prefix + name for name in _SSV2_FILES for prefix in (_SSV2_PREFIX, "")]
    is_output = os.path.realpath(folder) == os.path.realpath(output or os.devnull)
    ours = is_output and os.path.exists(os.path.join(folder, JOURNAL))
    for names in (wanted, [] if ours else [f"{split}.csv" for split in SPLITS]):
        found = [os.path.join(folder, name) for name in names]
        found = [path for path in found if os.path.isfile(path)]
        if found:
            return found
    return []


def _read_ssv2(files: list[str], videos: str) -> Source:
    folder = os.path.dirname(files[0])
    root = videos or os.path.join(folder, "20bn-something-something-v2")
    source = Source("Something-Something v2", root, class_names=ssv2.class_names(folder))
    for split, name in (("train", "train.json"), ("val", "validation.json")):
        if any(os.path.isfile(os.path.join(folder, p + name)) for p in ("", _SSV2_PREFIX)):
            for record in ssv2.read_index(folder, split, path_prefix=root):
                _add(source, Entry(record.path, split, record.label))
    return source


def _read_csvs(files: list[str], videos: str, output: str) -> Source:
    official = [file for file in files if is_official_list(file)]
    if official and len(official) < len(files):
        other = next(file for file in files if file not in official)
        raise UserError(
            f"SOURCE must be csv files of one form, got official Kinetics ones and {other}. "
            "Try each form by itself."
        )
    return _read_official(files, videos, output) if official else _read_lists(files, videos)


def _read_lists(files: list[str], videos: str) -> Source:
    entries = []
    names: list[str] | None = None
    for file in files:
        folder, name = os.path.split(file)
        split = SPLIT_NAMES.get(os.path.splitext(name)[0])
        if name not in {f"{split}.csv" for split in SPLITS} or split is None:
            raise UserError(
                f"SOURCE must be an official Kinetics csv, or lines of `path label` in a file "
                f"named train.csv, val.csv or test.csv, got {file!r}. Try renaming it."
            )
        names = kinetics.class_names(folder) or names
        labelled = _has_labels(file)
        for record in kinetics.read_index(folder, split, path_prefix=videos, labelled=labelled):
            label = None if record.label == NO_LABEL else record.label
            entries.append(Entry(record.path, split, label))
    root = videos or os.path.commonpath([os.path.dirname(entry.path) for entry in entries])
    source = Source("csv lists", root, class_names=names)
    for entry in entries:
        _add(source, entry)
    return source


def _has_labels(file: str) -> bool:
    """Return whether the first line of a list ends in a label; the reader checks the others."""
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        first = next((line.strip() for line in lines if line.strip()), "")
    return os.path.splitext(first.strip('"'))[1].lower() not in VIDEO_ENDINGS


def _read_official(files: list[str], videos: str, output: str) -> Source:
    root = videos or os.path.dirname(files[0])
    source = Source("official Kinetics csv", root)
    found = videos_in(root, skip=os.path.realpath(output) if output else None)
    at_hand = {os.path.splitext(os.path.basename(path))[0]: path for path in found}
    seen, names = set(), set()
    for file in files:
        for number, row in _rows(file):
            split = SPLIT_NAMES.get(row.get("split") or os.path.splitext(os.path.basename(file))[0])
            try:
                start, end = (int(float(row[f"time_{name}"])) for name in ("start", "end"))
                stem, label = f"{row['youtube_id']}_{start:06d}_{end:06d}", row["label"].strip()
            except (KeyError, ValueError, AttributeError):
                label = ""
            if not label or split is None:
                raise RecordError(
                    f"{file}:{number}: a line must be `label,youtube_id,time_start,time_end,split` "
                    f"with a label and a split of train, val or test, got "
                    f"{','.join(map(str, row.values()))!r}."
                )
            if (stem, split, label) in seen:
                continue
            seen.add((stem, split, label))
            names.add(label)
            if stem in at_hand:
                source.entries.append(Entry(at_hand[stem], split, label))
            else:
                source.lacking.append((os.path.join(root, f"{stem}.mp4"), "no such file"))
    source.class_names = sorted(names)
    if not source.entries:
        raise UserError(
            f"--videos must be the folder of the videos that {files[0]} names "
            f"({os.path.basename(source.lacking[0][0])} and so on, in any sub-folders), got "
            f"{root!r}, which has none of the {len(source.lacking)}."
            if source.lacking
            else f"{files[0]} must list videos, got a header alone."
        )
    return source


def _rows(file: str) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            for row in reader:
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{file} must be a csv file in UTF-8, got: {error}.") from None


def _add(source: Source, entry: Entry) -> None:
    if os.path.isfile(entry.path):
        source.entries.append(entry)
    else:
        is_there = os.path.exists(entry.path)
        source.lacking.append((entry.path, "is no file" if is_there else "no such file"))
