"""Measure our model against the published package, in turns, in one process.

python tools/benchmark.py model [--model hiera_base_16x224 --batch 2 --repeats 5]
python tools/benchmark.py mae [--model mae_hiera_base_16x224 --ratio 0.9 --keep-ratio 0.5]

Or a step of fine-tuning, by what it waits for, computes and sends; plain, compiled, with
checkpointing, and that of the published package:

python tools/benchmark.py train [--variants plain,published --device cuda --dtype bfloat16
    --batch-size 64 --picture step.png --cfg X.yaml DATA.PATH_TO_DATA_DIR DIR KEY VALUE ...]

Or what loading videos costs, of a list of yours or of videos that it makes:

python tools/benchmark.py loader --cfg X.yaml [DATA.PATH_TO_DATA_DIR DIR KEY VALUE ...]
"""

import argparse
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

import hiera_video
from hiera_video.benchmark.loader.measure import (
    backends_to_compare,
    compare_loading,
)
from hiera_video.benchmark.loader.parts import training_parts
from hiera_video.benchmark.loader.report import (
    render_head,
    render_loading,
    render_parts,
    render_per_view,
)
from hiera_video.benchmark.loader.videos import make_videos
from hiera_video.benchmark.pretraining import StepComparison, compare_steps
from hiera_video.benchmark.timing import (
    CPU,
    compare_forward,
    forward_operations,
    published_model,
)
from hiera_video.benchmark.train.figures import VARIANTS, TrainSettings
from hiera_video.benchmark.train.measure import measure_training, training_config
from hiera_video.benchmark.train.report import draw_training, headline, render_training
from hiera_video.config import Config, load_config
from hiera_video.data.build import read_records
from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.records import SPLITS, VideoRecord
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.scores import autocast, pick_device
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest
from hiera_video.utils.machine import usable_cores
from hiera_video.utils.outputs import refuse_unwritable

DTYPES = ("float32", "bfloat16")
LOADER_CONFIG = "configs/Kinetics/HIERA_B.yaml"


def model(arguments: argparse.Namespace) -> None:
    """Time our forward pass against the published package's, with the same weights."""
    make = find_model(arguments.model, "hiera_")
    theirs: Any = published_model(arguments.model)
    ours = make().eval()
    # The head starts at a thousandth of its scale, which would make all outputs alike.
    torch.nn.init.normal_(theirs.head.projection.weight, std=0.02)
    ours.load_state_dict(theirs.state_dict())
    clips = random_clips(ours, arguments.batch)
    operations = forward_operations(make(), clips)
    result = compare_forward(ours, theirs, clips, operations=operations, repeats=arguments.repeats)
    peers = version("hiera-transformer")
    print(
        f"{arguments.model}, forward of {arguments.batch} clips, float32, {machine()}\n"
        f"  ours       {result.ours_sec:6.2f} s\n"
        f"  published  {result.theirs_sec:6.2f} s  (hiera-transformer {peers})\n"
        f"  floor      {result.floor_sec:6.2f} s  ({operations / 1e9:.0f} GFLOP at the "
        f"{result.matmul_gflops:.0f} GFLOP/s of a matrix product in the same rounds)\n"
        f"  largest difference of the log-probabilities {result.max_difference:.1e}\n"
        f"ratio published / ours: {result.ratio:.2f} "
        f"(median of {arguments.repeats} interleaved rounds: {spread(result.ratios)})"
    )


def mae(arguments: argparse.Namespace) -> None:
    """Time our pretraining step against the published package's: same weights, same masks."""
    make = find_model(arguments.model, "mae_hiera_")
    device = pick_device(arguments.device, key="--device")
    theirs, ours = published_model(arguments.model).train(), make().train()
    ours.load_state_dict(theirs.state_dict())
    bfloat16 = arguments.dtype == "bfloat16"
    result = compare_steps(
        ours.to(device),
        theirs.to(device),
        random_clips(ours, arguments.batch).to(device),
        mask_ratio=arguments.ratio,
        keep_ratio=arguments.keep_ratio,
        repeats=arguments.repeats,
        autocast=lambda: autocast(device, enabled=bfloat16),
        device=device,
        # A CPU's bfloat16 products may be emulated, and float32 the better measure.
        dtype=torch.bfloat16 if bfloat16 and device.type == "cuda" else torch.float32,
    )
    precision = "bfloat16 autocast" if bfloat16 else "float32"
    print(
        f"{arguments.model}, forward and backward of {arguments.batch} clips, mask ratio "
        f"{arguments.ratio}, decoding part: {arguments.keep_ratio} of the hidden units, "
        f"{precision}, {machine(device)}, hiera-transformer {version('hiera-transformer')}"
    )
    print_steps(result, arguments.batch)


def print_steps(result: StepComparison, num_clips: int) -> None:
    """Print a line for each run, and what its floor is."""
    for name, what in result.missing.items():
        print(f"  {name:<20}{what}")
    for name, sec in result.seconds.items():
        line = (
            f"  {name:<20}{sec:8.3f} s {num_clips / sec:8.2f} clips/s "
            f"{result.peak_bytes[name] / 2**30:6.2f} GiB   loss {result.losses[name]:.6f}"
        )
        if name in result.floor_sec:
            line += (
                f"   floor {result.floor_sec[name]:.3f} s   {result.floor_sec[name] / sec:.0%} of "
                "it (share of peak)"
            )
        if name in result.floor_sec and result.ratios[name]:
            line += (
                f"   ratio published / this {statistics.median(result.ratios[name]):.2f} "
                f"(rounds: {spread(result.ratios[name])})"
            )
        print(line)
    print(
        f"  floor: operations at the {result.matmul_gflops:.0f} GFLOP/s of a matrix product in "
        "the same rounds"
    )


def loader(arguments: argparse.Namespace) -> None:
    """Tell decoding, transforms and transport apart, for videos of the user's or of ours."""
    cfg = load_config(arguments.cfg, arguments.overrides)
    wanted_workers = max(cfg.DATA_LOADER.NUM_WORKERS, 1)
    with tempfile.TemporaryDirectory(prefix="hiera_video_benchmark_") as folder:
        records = some_records(cfg, arguments.list, arguments.videos, folder)
        figures = compare_loading(
            cfg,
            records,
            backends=backends_to_compare(cfg),
            num_workers=arguments.workers or min(wanted_workers, usable_cores()),
            rounds=arguments.repeats,
        )
        frames_THWC = some_frames(records, cfg.DATA.NUM_FRAMES)
    parts_sec = training_parts(cfg, frames_THWC, repeats=arguments.repeats)
    whose = "videos of the list" if cfg.DATA.PATH_TO_DATA_DIR else "ten-second 340x256 H.264 videos"
    print(f"{whose}, {machine()}, {render_head(figures)}")
    for text in (render_loading(figures), render_per_view(figures), render_parts(parts_sec)):
        print(f"\n{text}")


def train(arguments: argparse.Namespace) -> None:
    """Tell the parts of a fine-tuning step apart, in our variants and the published model."""
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
    compared = "published" in arguments.variants and not report.figures["published"].note
    peers = f", hiera-transformer {version('hiera-transformer')}" if compared else ""
    print(
        f"{settings.cfg.MODEL.MODEL_NAME}, {headline(report)}"
        f"{peers}, medians of "
        f"{settings.rounds} interleaved rounds\n{render_training(report)}"
    )
    if arguments.picture:
        draw_training(report, arguments.picture)


def some_records(cfg: Config, split: str, num_videos: int, folder: str) -> Sequence[VideoRecord]:
    """Return videos spread evenly over a list; or new ones in `folder` where there is no list."""
    if not cfg.DATA.PATH_TO_DATA_DIR:
        print(f"No DATA.PATH_TO_DATA_DIR: making {num_videos} videos ...", flush=True)
        paths = make_videos(folder, num_videos=num_videos)
        return [VideoRecord(path, 0, number) for number, path in enumerate(paths)]
    records = read_records(cfg, split)
    some = np.linspace(0, len(records) - 1, min(num_videos, len(records))).astype(int)
    return [records[number] for number in some]


def some_frames(records: Sequence[VideoRecord], num_frames: int) -> np.ndarray:
    """Return frames of the first video that can be read, spread over its length."""
    for record in records[:-1]:
        with suppress(DecodeError):
            return read_frames(record.path, num_frames)
    return read_frames(records[-1].path, num_frames)


def read_frames(path: str, num_frames: int) -> np.ndarray:
    """Return `num_frames` frames spread over a video."""
    with open_video(path) as video:
        return video.frames_at(np.linspace(0, video.num_frames - 1, num_frames).astype(np.int64))


def find_model(name: str, prefix: str) -> Callable[..., Any]:
    """Return the model function of that name; a UserError lists those there are."""
    names = [option for option in hiera_video.__all__ if option.startswith(prefix)]
    if name not in names:
        raise UserError(
            f"--model must be one of {', '.join(names)}, got {name!r}.{closest(name, names)}"
        )
    return getattr(hiera_video, name)


def random_clips(model: HieraEncoder, batch: int) -> torch.Tensor:
    """Return as many clips of noise, of the model's size."""
    return torch.randn(batch, model.in_chans, *model.input_size)


def machine(device: torch.device = CPU) -> str:
    """Return what the figures were measured on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return (
        f"CPU ({platform.machine()}), {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def spread(ratios: Sequence[float]) -> str:
    """Return the rounds' ratios in ascending order."""
    return " ".join(f"{ratio:.2f}" for ratio in sorted(ratios))


def positive(text: str) -> int:
    """Return a whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def share(text: str) -> float:
    """Return a number between 0 and 1, for argparse."""
    number = float(text)
    if not 0 < number < 1:
        raise ValueError
    return number


def variants(text: str) -> tuple[str, ...]:
    """Return some of VARIANTS, for argparse, which names them in its help."""
    names = tuple(text.split(","))
    if not set(names) <= set(VARIANTS):
        raise argparse.ArgumentTypeError(f"must be some of {','.join(VARIANTS)}, got {text!r}")
    return names


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description="Benchmarks; interleaved runs, medians, ratios.")
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    of_model = commands.add_parser("model", help="forward pass against the published package")
    of_model.add_argument("--model", default="hiera_base_16x224")
    of_model.set_defaults(run=model)
    of_mae = commands.add_parser("mae", help="pretraining step against the published package")
    of_mae.add_argument("--model", default="mae_hiera_base_16x224")
    of_mae.add_argument("--ratio", type=share, default=0.9, help="share of units that is hidden")
    of_mae.add_argument("--keep-ratio", type=share, default=0.5, help="share of these decoded")
    of_mae.set_defaults(run=mae)
    of_loader = commands.add_parser("loader", help="loading videos against plain decoding")
    of_loader.add_argument("--cfg", default=LOADER_CONFIG, help="YAML file (%(default)s)")
    of_loader.add_argument("--list", choices=SPLITS, default="test", help="list to take videos of")
    of_loader.add_argument("--videos", type=positive, default=4, help="how many (%(default)s)")
    of_loader.add_argument("--workers", type=positive, help="processes; one per core if left out")
    of_loader.add_argument("--repeats", type=positive, default=5, help="rounds (%(default)s)")
    of_loader.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    of_loader.set_defaults(run=loader, threads=1)
    of_train = commands.add_parser("train", help="a fine-tuning step, part by part")
    of_train.add_argument("--cfg", default=LOADER_CONFIG, help="YAML file (%(default)s)")
    of_train.add_argument(
        "--variants", type=variants, default=VARIANTS, help=f"some of {','.join(VARIANTS)}"
    )
    of_train.add_argument("--processes", type=positive, default=1, help="sharing gradients")
    of_train.add_argument("--steps", type=positive, default=1, help="of each turn (%(default)s)")
    of_train.add_argument("--picture", metavar="PNG", help="draw the parts as bars")
    of_train.set_defaults(run=train)
    for command in (of_mae, of_train):
        command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        command.add_argument("--dtype", choices=DTYPES, default="float32", help="autocast's")
    of_mae.add_argument(
        "--bf16", dest="dtype", action="store_const", const="bfloat16", help="--dtype bfloat16"
    )
    for command in (of_model, of_mae, of_train):
        command.add_argument(
            *("--batch-size", "--batch"), dest="batch", type=positive, default=2, help="clips"
        )
        command.add_argument("--repeats", type=positive, default=5, help="rounds")
        command.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    of_train.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.run(arguments)
