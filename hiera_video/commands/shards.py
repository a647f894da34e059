"""Write the videos of a split into tar shards, with their index.

hiera-video shards --cfg configs/Kinetics/HIERA_B.yaml --output shards KEY VALUE ...
hiera-video shards --data-dir my_videos --split val --output shards
hiera-video shards --index-of shards --split train

Exit status: 0 if all videos are in; 1 if some are left out, or after an error, whose line begins
with "error:"; 2 for a wrong command line; 130 after Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from tqdm import tqdm

from hiera_video.commands.options import add_overrides, command_parser
from hiera_video.config import load_config
from hiera_video.data.checks.build import read_split
from hiera_video.data.checks.clean_list import write_class_names, write_table
from hiera_video.data.datasets import kinetics
from hiera_video.data.records import SPLITS, raise_problems
from hiera_video.data.shards.index import Shard, scan_shard, shard_files
from hiera_video.data.shards.writer import Plan, make_index, plan_shards, write_shards
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.text import printable

_SHOWN_BAD = 5


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("Write a split into tar shards, with their index.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cfg", help="YAML file, see configs/")
    what.add_argument("--data-dir", metavar="DIR", help="folder of the lists, without a config")
    what.add_argument("--index-of", metavar="DIR", help="write only the index of existing shards")
    parser.add_argument("--split", choices=SPLITS, default="train", help="(%(default)s)")
    parser.add_argument("--output", metavar="DIR", help="folder of the shards")
    parser.add_argument(
        "--shard-size-mb",
        type=float,
        default=1000.0,
        help="approximate, in 10^6 bytes (%(default)g)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of training videos")
    add_overrides(parser)
    arguments = parser.parse_args(argv)
    if not arguments.index_of and not arguments.output:
        parser.error("--output is missing: the folder of the shards")
    if not arguments.shard_size_mb > 0 or arguments.seed < 0:
        parser.error("--shard-size-mb must be above 0, and --seed 0 or more")
    return arguments


def write_names(folder: str, names: list[str] | None) -> None:
    """Write `classes.txt`; raises UserError if the folder has another one."""
    if names is None:
        return
    there = kinetics.class_names(folder)
    if there is not None and there != names:
        raise UserError(
            f"--output must be a folder for the same classes, got {folder!r}, whose classes.txt "
            "names others. Try another folder."
        )
    write_class_names(os.path.join(folder, "classes.txt"), names)


def open_output(folder: str) -> None:
    """Make the folder of the shards."""
    try:
        io.make_dirs(folder)
    except OSError as error:
        raise UserError(
            f"--output must be a folder that can be made, got {folder!r} ({error.strerror})."
        ) from None


def write_behind_a_bar(
    plan: Plan, arguments: argparse.Namespace, data_dir: str
) -> list[tuple[str, str]]:
    """Write the shards with a progress bar; if stopped, print how to continue."""
    with tqdm(
        total=plan.num_bytes, unit="B", unit_scale=True, desc=arguments.split, disable=None
    ) as bar:
        try:
            return write_shards(
                plan, arguments.output, arguments.split, data_dir=data_dir, progress=bar.update
            )
        except KeyboardInterrupt:
            print("\nthe same command goes on with the shards that are missing", file=sys.stderr)
            raise


def index_of(folder: str, split: str) -> None:
    """Write the index of existing shards, whoever wrote them."""
    names = shard_files(folder, split)
    if not names:
        raise UserError(f"--index-of must be a folder of {split}-000000.tar, got {folder!r}.")
    shards, problems = [], []
    for name in tqdm(names, unit="shard", disable=None):
        path = os.path.join(folder, name)
        samples, wrong = scan_shard(path, labelled=True)
        if wrong and not samples:  # shards for pretraining
            samples, wrong = scan_shard(path, labelled=False)
        shards.append(Shard(name, samples))
        problems += wrong
    raise_problems(problems)
    path = make_index(folder, split, shards)
    num_videos = sum(len(shard.samples) for shard in shards)
    print(f"{split}: {num_videos:,} videos in {len(shards):,} shards\nwritten: {path}")


def report(plan: Plan, bad: list[tuple[str, str]], arguments: argparse.Namespace) -> None:
    """Print what was written, and list what was not."""
    split, folder = arguments.split, arguments.output
    num_videos = sum(map(len, plan.shards.values())) + len(plan.left_out) - len(bad)
    print(f"{split}: {num_videos:,} videos in {len(plan.shards):,} shards in {folder}")
    if bad:
        file = os.path.join(folder, f"{split}_left_out.csv")
        write_table(file, ["path", "reason"], bad)
        print(f"left out ({len(bad):,}), all of them in {file}:")
        print("\n".join(f"  {printable(path)}: {printable(why)}" for path, why in bad[:_SHOWN_BAD]))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the shards of a split; return 1 if videos are left out."""
    arguments = parse_args(argv)
    if arguments.index_of:
        index_of(arguments.index_of, arguments.split)
        return 0
    place = [] if arguments.cfg else ["DATA.PATH_TO_DATA_DIR", arguments.data_dir]
    cfg = load_config(arguments.cfg, [*arguments.overrides, *place])
    split = read_split(cfg, arguments.split, guess_classes=arguments.cfg is None)
    open_output(arguments.output)
    write_names(arguments.output, split.class_names)
    shard_bytes = int(arguments.shard_size_mb * 1e6)
    plan = plan_shards(split.records, arguments.split, shard_bytes=shard_bytes, seed=arguments.seed)
    bad = write_behind_a_bar(plan, arguments, cfg.DATA.PATH_TO_DATA_DIR)
    report(plan, bad, arguments)
    return int(bool(bad))
