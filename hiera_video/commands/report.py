"""Write one html page on one run or several: hiera-video report OUTPUT_DIR [OUTPUT_DIR ...]"""

import os
from collections.abc import Sequence

from hiera_video.commands.options import command_parser
from hiera_video.report.write import REPORT_FILE, default_path, write_report
from hiera_video.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report and say where."""
    parser = command_parser(
        "Write one html page on a run, or on several side by side: curves, accuracies, "
        "confusions, mistakes, reconstructions, settings. It needs no server and no network."
    )
    parser.add_argument("folders", nargs="+", metavar="OUTPUT_DIR", help="folder of a run")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=f"the page (default: {REPORT_FILE} in OUTPUT_DIR, or in the folder that holds all of "
        "several OUTPUT_DIRs)",
    )
    parser.add_argument("--mistakes", type=int, default=12, help="number shown (%(default)s)")
    parser.add_argument(
        "--reconstructions", type=int, default=3, help="videos per pretraining run (%(default)s)"
    )
    arguments = parser.parse_args(argv)
    for key in ("mistakes", "reconstructions"):
        if (number := getattr(arguments, key)) < 0:
            raise UserError(f"--{key} must be at least 0, got {number}. Try 0 for none.")
    path = arguments.output or default_path(arguments.folders)
    num_bytes = write_report(
        arguments.folders,
        path,
        num_mistakes=arguments.mistakes,
        num_reconstructions=arguments.reconstructions,
    )
    print(f"report: {os.path.abspath(path)} ({num_bytes / 1e6:.1f} MB), opens in any browser")
