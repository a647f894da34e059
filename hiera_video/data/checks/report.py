"""What a check of a list found, as files and as text."""

import os
from collections.abc import Mapping
from typing import Any

from hiera_video.data.checks.clean_list import (
    SplitList,
    bad_videos,
    write_clean,
    write_json,
    write_table,
)
from hiera_video.data.checks.fingerprint import (
    describe_list,
    fingerprint,
    fingerprint_path,
    list_facts,
    list_hash,
    render,
)
from hiera_video.data.checks.journal import Verdict
from hiera_video.data.checks.known_lists import compare_with_known
from hiera_video.data.checks.notes import Note, find_notes
from hiera_video.data.checks.scan import ScanSettings
from hiera_video.utils.text import printable

_SHOWN_BAD = 5


def write_results(
    folder: str, split: SplitList, settings: ScanSettings, verdicts: Mapping[str, Verdict]
) -> tuple[str, int]:
    """Write the results of a scan into `folder`; return the text to print and the number of bad.

    The files are the bad videos, the notes, the fingerprint, and the list without bad videos.
    """
    bad = bad_videos(split, {path: verdict.reason for path, verdict in verdicts.items()})
    found, notes = take_fingerprint(split, settings, verdicts, bad)
    files = {name: os.path.join(folder, f"{split.name}_{name}.csv") for name in ("bad", "notes")}
    write_table(files["bad"], ["path", "reason"], bad.items())
    rows = ((note.kind, printable(which)) for note in notes for which in note.concerned)
    write_table(files["notes"], ["note", "path or class"], rows)
    write_json(fingerprint_path(folder, split.name), found)
    clean = write_clean(folder, split, bad)
    written = [*files.values(), fingerprint_path(folder, split.name), *([clean] if clean else [])]
    return f"{describe(split, found, bad)}\nwritten: {', '.join(written)}", len(bad)


def take_fingerprint(
    split: SplitList,
    settings: ScanSettings,
    verdicts: Mapping[str, Verdict],
    bad: Mapping[str, str],
) -> tuple[dict[str, Any], list[Note]]:
    """Return the fingerprint of a checked list, and what is odd about it."""
    facts = {path: None if path in bad else v.facts for path, v in verdicts.items()}
    notes = find_notes(split.records, split.num_classes, facts, class_names=split.class_names)
    found = fingerprint(
        split.records,
        split.num_classes,
        facts,
        split=split.name,
        clean_hash=list_hash(split.without(bad)),
        depth=settings.depth,
        backend=settings.backend,
        notes=[note.line() for note in notes],
    )
    return found, notes


def describe(split: SplitList, found: Mapping[str, Any], bad: Mapping[str, str]) -> str:
    """Return what was found, for a person to read."""
    lines = [
        f"{split.name}: {describe_list(list_facts(split.records, split.num_classes))}",
        *compare_with_known(len(split.records), split.num_classes),
        render(found),
        *(f"note: {note}" for note in found["notes"]),
    ]
    if bad:
        lines.append(f"bad ({len(bad):,}), all of them in {split.name}_bad.csv:")
        shown = list(bad.items())[:_SHOWN_BAD]
        lines += [f"  {printable(path)}: {printable(why)}" for path, why in shown]
    if len(bad) == len({record.path for record in split.records}):
        lines.append("No video is good: are the paths of the list, and DATA.PATH_PREFIX, right?")
    return printable("\n".join(lines), keep="\n")
