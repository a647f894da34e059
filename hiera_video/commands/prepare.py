"""Re-encode videos so that they are small and quick to decode, and write their lists.

hiera-video prepare SOURCE [SOURCE ...] OUTPUT [--short-side 256] [--workers N] ...
"""

import argparse
import sys
from collections.abc import Sequence

from hiera_video.commands.options import command_parser
from hiera_video.data.prepare.encode import PRESETS, Encoding
from hiera_video.data.prepare.plan import split_off_val
from hiera_video.data.prepare.run import list_only, prepare
from hiera_video.data.prepare.sources import read_source
from hiera_video.utils.errors import UserError
from hiera_video.utils.machine import usable_cores

_ABOUT = """\
Re-encode videos for training (H.264, short groups of frames, no sound, a short side of 256 px) into
OUTPUT/videos, and write OUTPUT/train.csv, val.csv, test.csv and classes.txt.

SOURCE is one of:
  a folder of class folders            all is train, or see --val-share
  a folder with train/ val/ test/      of class folders each
  a folder of videos alone             a list without labels, for pretraining
  train.csv, val.csv, test.csv         lines of `path label`; or the folder that holds them
  official Kinetics csv files          label,youtube_id,time_start,time_end,split; see --videos
  a folder of Something-Something v2   with its json files; see --videos

Run the same command again to continue after an interruption, or to add new videos. Sources are only
read. Videos that cannot be prepared are listed in OUTPUT/failed.csv, with reasons.
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    default = Encoding()
    parser = command_parser(_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", nargs="+", help="what to read, see above")
    parser.add_argument("output", metavar="OUTPUT", help="a new folder, or one of an earlier call")
    parser.add_argument("--videos", default="", help="folder of the videos that the lists name")
    parser.add_argument(
        "--lists-only", action="store_true", help="write the lists only; do not re-encode"
    )
    group = parser.add_argument_group("lists")
    group.add_argument(
        "--val-share",
        type=float,
        help="fraction of each class's videos for val, e.g. 0.1; the same ones every time",
    )
    group.add_argument(
        "--classes", default="", help="file of class names, in the order of their numbers"
    )
    group = parser.add_argument_group("videos")
    group.add_argument(
        "--short-side",
        type=int,
        default=default.short_side,
        help="pixels; smaller videos are not enlarged (%(default)s)",
    )
    group.add_argument(
        "--crf", type=int, default=default.crf, help="x264's quality, lower is better (%(default)s)"
    )
    group.add_argument(
        "--gop",
        type=int,
        default=default.gop,
        help="frames from one key frame to the next (%(default)s)",
    )
    group.add_argument(
        "--preset", choices=PRESETS, default=default.preset, help="x264's effort (%(default)s)"
    )
    group = parser.add_argument_group("run")
    group.add_argument(
        "--workers", type=int, default=usable_cores(), help="processes (default: one per core)"
    )
    group.add_argument(
        "--time-limit",
        type=float,
        default=120.0,
        help="seconds per 64 frames, after which a file has failed (%(default)g)",
    )
    group.add_argument(
        "--max-failed",
        type=float,
        default=0.1,
        help="fraction of videos that may fail; above it the exit status is 1 (%(default)g)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the source, prepare it, print two lines; return the exit status."""
    args = parse_args(argv)
    if not 0 <= args.max_failed <= 1:
        raise UserError(f"--max-failed must be in 0..1, got {args.max_failed}. Try 0.1.")
    source = read_source(args.source, videos=args.videos, output=args.output)
    if args.val_share is not None:
        split_off_val(source, args.val_share)
    print(source.describe(), flush=True)
    if args.lists_only:
        summary = list_only(source, args.output, classes_file=args.classes)
    else:
        encoding = Encoding(args.short_side, args.crf, args.gop, args.preset)
        try:
            summary = prepare(
                source,
                args.output,
                encoding=encoding,
                num_workers=args.workers,
                time_limit_sec=args.time_limit,
                classes_file=args.classes,
            )
        except KeyboardInterrupt:
            print(
                "\nFinished videos are kept. The same command goes on from here.", file=sys.stderr
            )
            raise
    print(summary.describe(args.output))
    if summary.num_ready and summary.share_failed <= args.max_failed:
        return 0
    share = f"{100 * summary.share_failed:.1f} %"
    print(
        f"error: {share} of the videos failed, --max-failed is {args.max_failed}", file=sys.stderr
    )
    return 1
