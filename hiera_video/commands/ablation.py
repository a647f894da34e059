"""Measure any list of configs side by side: cost, speed and memory, in interleaved rounds.

hiera-video ablation CONFIG [CONFIG ...] --output FOLDER [--rounds 5] [KEY VALUE ...]

A config is a path of a .yaml file, NAME=PATH, or NAME=FINE_TUNING,PRETRAINING. X_MAE_PT.yaml beside
X.yaml joins its row. Input is random pixels. The same command goes on after Ctrl-C.
"""

import argparse
import os
from collections.abc import Sequence
from itertools import takewhile

from hiera_video.benchmark.ablation.report import speeds, write_report
from hiera_video.benchmark.ablation.rows import WHAT, read_published, read_rows
from hiera_video.benchmark.ablation.run import (
    AUTO,
    RESULTS_FILE,
    Request,
    nothing_measured,
    read_results,
    take_rounds,
)
from hiera_video.commands.options import command_parser, positive
from hiera_video.models.parts.scores import pick_device
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.outputs import make_folder


def batch_size(text: str) -> int:
    """Read a number of clips, or "auto", for `type=`."""
    return AUTO if text == "auto" else positive(int)(text)


def kinds(text: str) -> tuple[str, ...]:
    """Read some of WHAT, for `type=`."""
    names = tuple(text.split(","))
    if not set(names) <= set(WHAT):
        raise argparse.ArgumentTypeError(f"must be some of {','.join(WHAT)}, got {text!r}")
    return names


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("Measure configs side by side, in interleaved rounds.")
    number = positive(int)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CONFIG | KEY VALUE",
        help="PATH or NAME=PATH[,PATH], each ending in .yaml; then config overrides for all",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="for results and table")
    parser.add_argument("--rounds", type=number, default=5, help="(%(default)s)")
    parser.add_argument("--what", type=kinds, default=WHAT, help=f"some of {','.join(WHAT)}")
    parser.add_argument("--batch-size", type=batch_size, default=1, help="clips, or auto")
    parser.add_argument(
        "--memory-limit-gib", type=positive(float), default=0.0, help="of each process"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    parser.add_argument(
        "--seconds", type=positive(float), default=2.0, help="of one figure, at least one step"
    )
    parser.add_argument("--reference", metavar="NAME", help="row of ratio 1 (default: the first)")
    parser.add_argument("--published", default="", metavar="JSON", help="further published figures")
    parser.add_argument("--restart", action="store_true", help="drop the results in the folder")
    parser.add_argument(
        "--from", dest="source", metavar="JSON", help="only draw the table of these results"
    )
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the tables; return 1 if no row could be measured."""
    arguments = parse_args(argv)
    published = read_published(arguments.published)
    make_folder(arguments.output, key="--output")
    if arguments.source:
        results = read_results(arguments.source)
    else:
        paths = list(takewhile(lambda word: word.endswith(".yaml"), arguments.words))
        rows = read_rows(paths)
        if not rows:
            raise UserError("CONFIG must name at least one config. Try configs/Ablation/*.yaml.")
        check_reference(arguments.reference, [row.name for row in rows])
        pick_device(arguments.device, key="--device")
        results_path = os.path.join(arguments.output, RESULTS_FILE)
        if arguments.restart and io.is_file(results_path):
            os.unlink(results_path)
        request = Request(
            rows=tuple(rows),
            overrides=tuple(arguments.words[len(paths) :]),
            what=arguments.what,
            rounds=arguments.rounds,
            batch_size=arguments.batch_size,
            device=arguments.device,
            bfloat16=arguments.dtype == "bfloat16",
            threads=arguments.threads,
            seconds=arguments.seconds,
            memory_limit_gib=arguments.memory_limit_gib,
        )
        results = take_rounds(request, arguments.output, lambda line: print(line, flush=True))
    names = [*speeds(results, ""), *results.costs]  # the first that has figures, if any has
    reference = arguments.reference or next(iter(names), "")
    check_reference(reference, names)
    for path in write_report(results, arguments.output, published, reference):
        print(f"written: {path}")
    if nothing_measured(results):
        print("no row could be measured")
        return 1
    return 0


def check_reference(name: str | None, rows: Sequence[str]) -> None:
    """Raise a UserError unless `name` is one of the rows, or None."""
    if name is not None and name not in rows:
        raise UserError(f"--reference must be a row ({', '.join(rows)}), got {name!r}.")
