"""Measure: python tools/benchmark.py model [--model hiera_base_16x224 --batch 2 --repeats 5]"""

import argparse
import platform
from collections.abc import Sequence
from importlib.metadata import version

import torch

import hiera_video
from hiera_video.engine.benchmark import compare_forward, forward_operations, published_model
from hiera_video.utils import cli
from hiera_video.utils.errors import UserError


def model(arguments: argparse.Namespace) -> None:
    """Time our forward pass against the published package's, with the same weights."""
    make = getattr(hiera_video, arguments.model, None)
    if make is None:
        raise UserError(f"--model must be a model of hiera_video, got {arguments.model!r}.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    theirs, ours = published_model(arguments.model), make().eval()
    # The head starts at a thousandth of its scale, which would make all outputs alike.
    torch.nn.init.normal_(theirs.head.projection.weight, std=0.02)
    ours.load_state_dict(theirs.state_dict())
    clips = torch.randn(arguments.batch, ours.in_chans, *ours.input_size)
    operations = forward_operations(make(), clips)
    result = compare_forward(ours, theirs, clips, operations=operations, repeats=arguments.repeats)
    spread = " ".join(f"{ratio:.2f}" for ratio in sorted(result.ratios))
    peers = version("hiera-transformer")
    print(
        f"{arguments.model}, forward of {arguments.batch} clips, float32, CPU "
        f"({platform.machine()}), {torch.get_num_threads()} threads, torch {torch.__version__}\n"
        f"  ours       {result.ours_sec:6.2f} s\n"
        f"  published  {result.theirs_sec:6.2f} s  (hiera-transformer {peers})\n"
        f"  floor      {result.floor_sec:6.2f} s  ({operations / 1e9:.0f} GFLOP at the "
        f"{result.matmul_gflops:.0f} GFLOP/s of a matrix product in the same rounds)\n"
        f"  largest difference of the log-probabilities {result.max_difference:.1e}\n"
        f"ratio published / ours: {result.ratio:.2f} "
        f"(median of {arguments.repeats} interleaved rounds: {spread})"
    )


def positive(text: str) -> int:
    """Return a whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description="Benchmarks; interleaved runs, medians, ratios.")
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    of_model = commands.add_parser("model", help="forward pass against the published package")
    of_model.add_argument("--model", default="hiera_base_16x224")
    of_model.add_argument("--batch", type=positive, default=2, help="clips in a pass")
    of_model.add_argument("--repeats", type=positive, default=5, help="rounds")
    of_model.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    of_model.set_defaults(run=model)
    arguments = parser.parse_args(argv)
    arguments.run(arguments)


if __name__ == "__main__":
    cli.run(main)
