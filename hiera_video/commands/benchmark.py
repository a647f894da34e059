"""Measure hiera_video against the published package, in interleaved runs in one process.

hiera-video benchmark model [--model hiera_base_16x224 --batch 2 --repeats 5]
hiera-video benchmark mae [--model mae_hiera_base_16x224 --ratio 0.9 --keep-ratio 0.5]

A fine-tuning step, split into waiting for data, computing and communicating; plain, compiled, with
checkpointing, and that of the published package:

hiera-video benchmark train [--variants plain,published --device cuda --dtype bfloat16
    --batch-size 64 --picture step.png --cfg X.yaml DATA.PATH_TO_DATA_DIR DIR KEY VALUE ...]

Loading videos, from a list of yours or from synthetic videos:

hiera-video benchmark loader --cfg X.yaml [DATA.PATH_TO_DATA_DIR DIR KEY VALUE ...]
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hiera_video.benchmark.forward import forward_report
from hiera_video.benchmark.loader.run import loading_report
from hiera_video.benchmark.pretraining import pretraining_report
from hiera_video.benchmark.train.figures import VARIANTS, TrainSettings
from hiera_video.benchmark.train.measure import measure_training, training_config
from hiera_video.benchmark.train.report import describe_training, draw_training
from hiera_video.commands.options import (
    add_overrides,
    command_parser,
    fraction,
    model_functions,
    positive,
)
from hiera_video.config import load_config
from hiera_video.data.records import SPLITS
from hiera_video.models.parts.scores import pick_device
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest
from hiera_video.utils.outputs import refuse_unwritable

DTYPES = ("float32", "bfloat16")
CONFIG = "configs/Kinetics/HIERA_B.yaml"


def model(arguments: argparse.Namespace) -> None:
    """Time the forward pass of a model."""
    make = find_model(arguments.model, "hiera_")
    report = forward_report(
        arguments.model, make, num_clips=arguments.batch, repeats=arguments.repeats
    )
    print(report)


def mae(arguments: argparse.Namespace) -> None:
    """Time the pretraining step of a model."""
    report = pretraining_report(
        arguments.model,
        find_model(arguments.model, "mae_hiera_"),
        num_clips=arguments.batch,
        mask_ratio=arguments.ratio,
        keep_ratio=arguments.keep_ratio,
        repeats=arguments.repeats,
        device=pick_device(arguments.device, key="--device"),
        bfloat16=arguments.dtype == "bfloat16",
    )
    print(report)


def loader(arguments: argparse.Namespace) -> None:
    """Time the loading of videos."""
    report = loading_report(
        load_config(arguments.cfg, arguments.overrides),
        arguments.list,
        num_videos=arguments.videos,
        num_workers=arguments.workers,
        rounds=arguments.repeats,
    )
    print(report)


def train(arguments: argparse.Namespace) -> None:
    """Time the parts of a fine-tuning step."""
    if arguments.picture:
        refuse_unwritable(arguments.picture, key="--picture")
    settings = TrainSettings(
        cfg=training_config(
            arguments.cfg,
            arguments.overrides,
            batch_size=arguments.batch,
            device=arguments.device,
            bfloat16=arguments.dtype == "bfloat16",
            processes=arguments.processes,
        ),
        variants=arguments.variants,
        rounds=arguments.repeats,
        steps=arguments.steps,
        device=arguments.device,
        processes=arguments.processes,
        threads=arguments.threads,
    )
    report = measure_training(settings)
    print(describe_training(settings, report))
    if arguments.picture:
        draw_training(report, arguments.picture)


def find_model(name: str, prefix: str) -> Callable[..., Any]:
    """Return the model function `name`.

    Raises:
        UserError: there is none; the message lists those that begin with `prefix`.
    """
    functions = model_functions(prefix)
    if name not in functions:
        raise UserError(
            f"--model must be one of {', '.join(functions)}, got {name!r}."
            f"{closest(name, functions)}"
        )
    return functions[name]


def variants(text: str) -> tuple[str, ...]:
    """Read some of VARIANTS, for `type=`; its errors name them."""
    names = tuple(text.split(","))
    if not set(names) <= set(VARIANTS):
        raise argparse.ArgumentTypeError(f"must be some of {','.join(VARIANTS)}, got {text!r}")
    return names


def add_model(commands: Any) -> argparse.ArgumentParser:
    """Add `benchmark model`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "model", help="forward pass against the published package"
    )
    parser.add_argument("--model", default="hiera_base_16x224")
    parser.set_defaults(run=model)
    return parser


def add_mae(commands: Any) -> argparse.ArgumentParser:
    """Add `benchmark mae`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "mae", help="pretraining step against the published package"
    )
    parser.add_argument("--model", default="mae_hiera_base_16x224")
    parser.add_argument("--ratio", type=fraction, default=0.9, help="of units hidden (%(default)s)")
    parser.add_argument(
        "--keep-ratio", type=fraction, default=0.5, help="of these decoded (%(default)s)"
    )
    parser.set_defaults(run=mae)
    return parser


def add_loader(commands: Any) -> None:
    """Add `benchmark loader`."""
    parser = commands.add_parser("loader", help="loading videos against plain decoding")
    number = positive(int)
    parser.add_argument("--cfg", default=CONFIG, help="YAML file (%(default)s)")
    parser.add_argument("--list", choices=SPLITS, default="test", help="to take videos from")
    parser.add_argument("--videos", type=number, default=4, help="number of them (%(default)s)")
    parser.add_argument("--workers", type=number, help="processes (default: one per core)")
    parser.add_argument("--repeats", type=number, default=5, help="rounds (%(default)s)")
    add_overrides(parser)
    parser.set_defaults(run=loader, threads=1)


def add_train(commands: Any) -> argparse.ArgumentParser:
    """Add `benchmark train`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train", help="a fine-tuning step, part by part"
    )
    number = positive(int)
    parser.add_argument("--cfg", default=CONFIG, help="YAML file (%(default)s)")
    parser.add_argument(
        "--variants", type=variants, default=VARIANTS, help=f"some of {','.join(VARIANTS)}"
    )
    parser.add_argument("--processes", type=number, default=1, help="data-parallel (%(default)s)")
    parser.add_argument("--steps", type=number, default=1, help="per turn (%(default)s)")
    parser.add_argument("--picture", metavar="PNG", help="draw the parts as bars")
    parser.set_defaults(run=train)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run one benchmark."""
    parser = command_parser("Benchmarks: interleaved runs, medians, ratios.")
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    of_model, of_mae = add_model(commands), add_mae(commands)
    add_loader(commands)
    of_train = add_train(commands)
    for command in (of_mae, of_train):
        command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        command.add_argument("--dtype", choices=DTYPES, default="float32", help="of autocast")
    of_mae.add_argument(  # after --dtype: the default is that of the option added first
        "--bf16", dest="dtype", action="store_const", const="bfloat16", help="--dtype bfloat16"
    )
    for command in (of_model, of_mae, of_train):
        number = positive(int)
        command.add_argument(
            *("--batch-size", "--batch"), dest="batch", type=number, default=2, help="clips"
        )
        command.add_argument("--repeats", type=number, default=5, help="rounds")
        command.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    add_overrides(of_train)
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.run(arguments)
