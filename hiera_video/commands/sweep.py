"""Run grids of settings, each pretrained, fine-tuned and tested; collect and show the results.

hiera-video sweep configs/Sweeps/mask_ratio.yaml [...] [--results sweeps.jsonl] [KEY VALUE ...]

A finished run is a line in the results file and is never run again. An interrupted one goes on.
"""

import argparse
import os
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from hiera_video.commands.options import command_parser, positive
from hiera_video.sweeps.plan import Chain, Sweep, read_sweep
from hiera_video.sweeps.report import draw, table
from hiera_video.sweeps.run import read_lines, run_chains
from hiera_video.utils.errors import UserError
from hiera_video.utils.machine import clock
from hiera_video.utils.outputs import make_folder, refuse_unwritable


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("Run grids of settings, and collect their accuracy and time.")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="SWEEP | KEY VALUE",
        help="files of sweeps (.yaml); then config overrides for all runs",
    )
    parser.add_argument("--results", default="sweeps.jsonl", help="a line a run (%(default)s)")
    parser.add_argument("--output", default="output/sweeps", help="of the runs (%(default)s)")
    parser.add_argument("--seeds", help="as 0,1,2: in place of the sweep's")
    parser.add_argument("--only", default="", metavar="TEXT", help="runs whose name has this text")
    parser.add_argument(
        "--fine-tune", dest="fine_tune_config", help="config in place of the sweep's fine_tune"
    )
    parser.add_argument(
        "--pretrain", dest="pretrain_config", help="config in place of the sweep's pretrain"
    )
    parser.add_argument(
        "--budget-min", type=positive(float), default=float("inf"), help="start no run after it"
    )
    parser.add_argument("--list", action="store_true", help="show the runs, run none")
    parser.add_argument("--table", action="store_true", help="print the results, run none")
    parser.add_argument("--plot", metavar="PNG", help="draw the results, run none")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, or show what is there; return 75 if the budget ended before the runs."""
    arguments = parse_args(argv)
    files = list(takewhile(lambda word: word.endswith(".yaml"), arguments.words))
    if not files:
        raise UserError("SWEEP must name at least one file. Try configs/Sweeps/mask_ratio.yaml.")
    bases = {"fine_tune": arguments.fine_tune_config, "pretrain": arguments.pretrain_config}
    sweeps = [
        read_sweep(
            path,
            output=arguments.output,
            overrides=arguments.words[len(files) :],
            seeds=seeds(arguments.seeds),
            bases={stage: path for stage, path in bases.items() if path},
        )
        for path in files
    ]
    chains = [c for sweep in sweeps for c in sweep.chains if arguments.only in c.name]
    if not chains:
        raise UserError(f"--only must be part of a run's name, got {arguments.only!r}. Try --list.")
    if arguments.list or arguments.table or arguments.plot:
        show(arguments, sweeps, chains)
        return 0
    refuse_unwritable(arguments.results, key="--results")
    make_folder(arguments.output, key="--output")
    left = run_chains(
        chains,
        arguments.results,
        budget_sec=60 * arguments.budget_min,
        say=lambda line: print(line, flush=True),
    )
    print(table(_lines_of(arguments.results, chains)))
    return 75 if left else 0


def show(arguments: argparse.Namespace, sweeps: Sequence[Sweep], chains: Sequence[Chain]) -> None:
    """Print the runs or the table, or draw the picture."""
    lines = _lines_of(arguments.results, chains)
    if arguments.list:
        for sweep in sweeps:
            print(f"{sweep.name}: {sweep.about}")
        print(listing(chains, {line["name"]: line for line in lines}))
    if arguments.table:
        print(table(lines))
    if arguments.plot:
        draw(lines, arguments.plot)
        print(f"written: {os.path.abspath(arguments.plot)}")


def listing(chains: Sequence[Chain], done: dict[str, dict[str, Any]]) -> str:
    """Return a line for each run, and how long those to come may take."""
    rows = []
    for chain in chains:
        line = done.get(chain.name)
        found = "to come" if line is None else f"{line['top1']:.1f} %"
        rows.append(f"  {found:>8}  {chain.name}")
    spent = [
        line["train_sec"] + line["test_sec"] + line.get("pretrain_sec", 0.0)
        for line in done.values()
    ]
    missing = sum(chain.name not in done for chain in chains)
    forecast = f", about {clock(missing * sum(spent) / len(spent))}" if spent and missing else ""
    return "\n".join([*rows, f"{len(chains) - missing} done, {missing} to come{forecast}"])


def seeds(text: str | None) -> list[int]:
    """Read numbers with commas between them.

    Raises:
        UserError: one is no number.
    """
    try:
        return [int(word) for word in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"--seeds must be numbers as in 0,1,2, got {text!r}.") from None


def _lines_of(results: str, chains: Sequence[Chain]) -> list[dict[str, Any]]:
    wanted = {chain.name for chain in chains}
    return [line for line in read_lines(results) if line["name"] in wanted]
