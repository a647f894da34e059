"""Decode all videos of a split as training would: what is bad, a clean list, a fingerprint.

python tools/check_data.py --cfg configs/Kinetics/HIERA_B.yaml --split train KEY VALUE ...
python tools/check_data.py --data-dir my_videos --split val

Exit status: 0 if all videos are good, 1 if some are bad (or the check could not be made, which a
line that begins with "error:" says), 2 for a wrong command line, 130 after Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from hiera_video.config import Config, load_config
from hiera_video.data import datasets
from hiera_video.data.build import read_class_names, read_records, split_number
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
from hiera_video.data.checks.journal import Journal, Verdict
from hiera_video.data.checks.known_lists import compare_with_known
from hiera_video.data.checks.notes import Note, find_notes
from hiera_video.data.checks.scan import ScanSettings, scan
from hiera_video.data.decoders import check_backend
from hiera_video.data.records import SPLITS
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import find_module
from hiera_video.utils.machine import usable_cores
from hiera_video.utils.text import printable

_SHOWN_BAD = 5


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Decode all videos of a split as training would; list the bad ones."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cfg", help="YAML file, see configs/")
    what.add_argument("--data-dir", metavar="DIR", help="folder of the lists, without a config")
    parser.add_argument("--split", choices=SPLITS, default="train", help="(%(default)s)")
    parser.add_argument("--full", action="store_true", help="every frame, not three clips of each")
    parser.add_argument("--workers", type=positive(int), help="processes; one per core if left out")
    parser.add_argument(
        "--time-limit-sec", type=positive(float), default=60.0, help="for a video (%(default)s)"
    )
    parser.add_argument("--output", help="folder of the results (OUTPUT_DIR/data_check)")
    parser.add_argument(
        "--afresh", action="store_true", help="decode again what an earlier check has decoded"
    )
    parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides"
    )
    return parser.parse_args(argv)


def positive(kind: type) -> Callable[[str], float]:
    """Return a reader of numbers above 0, for argparse."""

    def number_above_0(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    return number_above_0


def read_split(cfg: Config, name: str, *, guess_classes: bool) -> SplitList:
    """Read the list of a split, and what its classes are called."""
    dataset = (cfg.TEST if name == "test" else cfg.TRAIN).DATASET
    num_classes: int | None
    if not guess_classes:
        records, names = read_records(cfg, name), read_class_names(cfg, name)
        num_classes = cfg.MODEL.NUM_CLASSES
    else:
        module = find_module(datasets.__name__, dataset, key="DATASET")
        labelled = cfg.TASK == "classify"
        names = module.class_names(cfg.DATA.PATH_TO_DATA_DIR) if labelled else None
        num_classes = len(names) if names else None
        records = module.read_index(
            cfg.DATA.PATH_TO_DATA_DIR,
            name,
            path_prefix=cfg.DATA.PATH_PREFIX,
            num_classes=num_classes,
            labelled=labelled,
            **split_number(module.read_index, cfg.DATA.SPLIT_NUMBER),
        )
        num_classes = num_classes or max(record.label for record in records) + 1
    return SplitList(name, dataset, cfg.DATA.PATH_TO_DATA_DIR, records, num_classes, names)


def settings_of(cfg: Config, *, full: bool) -> ScanSettings:
    """Return what a scan does with each video."""
    check_backend(cfg.DATA.DECODING_BACKEND)
    return ScanSettings(
        backend=cfg.DATA.DECODING_BACKEND,
        full=full,
        sampling=cfg.DATA.SAMPLING,
        num_frames=cfg.DATA.NUM_FRAMES,
        sampling_rate=cfg.DATA.SAMPLING_RATE,
        target_fps=cfg.DATA.TARGET_FPS,
        square_pixels=cfg.DATA.SQUARE_PIXELS,
    )


def open_journal(folder: str, split: SplitList, settings: ScanSettings, *, afresh: bool) -> Journal:
    """Make the folder of the results and open the journal in it.

    Raises UserError for a folder with a list that this tool did not write.
    """
    path = os.path.join(folder, f"{split.name}_journal.jsonl")
    same = os.path.realpath(folder) == os.path.realpath(split.data_dir)
    if same or (io.is_file(os.path.join(folder, split.file_name)) and not io.is_file(path)):
        raise UserError(
            f"--output must be a folder without a list of your own, got {folder!r}, which has "
            f"{split.file_name}. Try --output {os.path.join(folder, 'data_check')}."
        )
    try:
        io.make_dirs(folder)
    except OSError as error:
        raise UserError(
            f"--output must be a folder that can be made, got {folder!r} ({error.strerror})."
        ) from None
    return Journal(path, settings.as_dict(), afresh=afresh)


def run_scan(
    split: SplitList, settings: ScanSettings, journal: Journal, arguments: argparse.Namespace
) -> dict[str, Verdict]:
    """Decode the videos behind a progress bar; say, when stopped, how to go on."""
    paths = list(dict.fromkeys(record.path for record in split.records))
    num_bad = 0
    with tqdm(total=len(paths), unit="video", desc=split.name, disable=None) as bar:

        def show(verdict: Verdict) -> None:
            nonlocal num_bad
            num_bad += verdict.facts is None
            bar.set_postfix_str(f"{num_bad} bad", refresh=False)
            bar.update()

        try:
            return scan(
                paths,
                settings=settings,
                journal=journal,
                num_workers=arguments.workers or usable_cores(),
                time_limit_sec=arguments.time_limit_sec,
                progress=show,
            )
        except KeyboardInterrupt:
            print(
                f"\n{bar.n} of {len(paths)} videos are checked; the same command goes on from "
                "there",
                file=sys.stderr,
            )
            raise


def take_fingerprint(
    split: SplitList, settings: ScanSettings, verdicts: dict[str, Verdict], bad: dict[str, str]
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


def report(split: SplitList, found: dict[str, Any], bad: dict[str, str]) -> str:
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


def main(argv: Sequence[str] | None = None) -> int:
    """Check a split; return 1 if it has bad videos."""
    arguments = parse_args(argv)
    place = [] if arguments.cfg else ["DATA.PATH_TO_DATA_DIR", arguments.data_dir]
    cfg = load_config(arguments.cfg, [*arguments.overrides, *place])
    folder = arguments.output or os.path.join(cfg.OUTPUT_DIR, "data_check")
    settings = settings_of(cfg, full=arguments.full)
    split = read_split(cfg, arguments.split, guess_classes=arguments.cfg is None)
    with open_journal(folder, split, settings, afresh=arguments.afresh) as journal:
        verdicts = run_scan(split, settings, journal, arguments)
    bad = bad_videos(split, {path: verdict.reason for path, verdict in verdicts.items()})
    found, notes = take_fingerprint(split, settings, verdicts, bad)
    files = {name: os.path.join(folder, f"{split.name}_{name}.csv") for name in ("bad", "notes")}
    write_table(files["bad"], ["path", "reason"], bad.items())
    rows = ((note.kind, printable(which)) for note in notes for which in note.concerned)
    write_table(files["notes"], ["note", "path or class"], rows)
    write_json(fingerprint_path(folder, split.name), found)
    clean = write_clean(folder, split, bad)
    print(report(split, found, bad))
    written = [*files.values(), fingerprint_path(folder, split.name), *([clean] if clean else [])]
    print(f"written: {', '.join(written)}")
    return int(bool(bad))
