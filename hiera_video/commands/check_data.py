"""Decode every video of a split as training would; list the bad ones, write a clean list.

hiera-video check-data --cfg configs/Kinetics/HIERA_B.yaml --split train KEY VALUE ...
hiera-video check-data --data-dir my_videos --split val

Exit status: 0 if all videos are good; 1 if some are bad, or after an error, whose line begins with
"error:"; 2 for a wrong command line; 130 after Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from tqdm import tqdm

from hiera_video.commands.options import add_overrides, command_parser, positive
from hiera_video.config import load_config
from hiera_video.data.checks.build import read_split, scan_settings
from hiera_video.data.checks.clean_list import SplitList
from hiera_video.data.checks.journal import Journal, Verdict
from hiera_video.data.checks.report import write_results
from hiera_video.data.checks.scan import ScanSettings, scan
from hiera_video.data.records import SPLITS
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.machine import usable_cores


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("Decode every video of a split as training would; list the bad ones.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cfg", help="YAML file, see configs/")
    what.add_argument("--data-dir", metavar="DIR", help="folder of the lists, without a config")
    parser.add_argument("--split", choices=SPLITS, default="train", help="(%(default)s)")
    parser.add_argument(
        "--full", action="store_true", help="decode every frame, not three clips per video"
    )
    parser.add_argument("--workers", type=positive(int), help="processes (default: one per core)")
    parser.add_argument(
        "--time-limit-sec", type=positive(float), default=60.0, help="per video (%(default)s)"
    )
    parser.add_argument("--output", help="folder of the results (default: OUTPUT_DIR/data_check)")
    parser.add_argument(
        "--afresh", action="store_true", help="also decode what an earlier check has decoded"
    )
    add_overrides(parser)
    return parser.parse_args(argv)


def open_journal(folder: str, split: SplitList, settings: ScanSettings, *, afresh: bool) -> Journal:
    """Make the folder of the results and open the journal in it.

    Raises:
        UserError: the folder has a list that this command did not write, or cannot be made.
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
    """Decode the videos with a progress bar; if stopped, print how to continue."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Check a split; return 1 if it has bad videos."""
    arguments = parse_args(argv)
    place = [] if arguments.cfg else ["DATA.PATH_TO_DATA_DIR", arguments.data_dir]
    cfg = load_config(arguments.cfg, [*arguments.overrides, *place])
    folder = arguments.output or os.path.join(cfg.OUTPUT_DIR, "data_check")
    settings = scan_settings(cfg, full=arguments.full)
    split = read_split(cfg, arguments.split, guess_classes=arguments.cfg is None)
    with open_journal(folder, split, settings, afresh=arguments.afresh) as journal:
        verdicts = run_scan(split, settings, journal, arguments)
    text, num_bad = write_results(folder, split, settings, verdicts)
    print(text)
    return int(num_bad > 0)
