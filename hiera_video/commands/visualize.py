"""Draw what models see in videos: the evidence for a class, what masks hide, reconstructions.

hiera-video visualize evidence VIDEO ... --checkpoint X.pyth [--label NAME]
hiera-video visualize mae VIDEO ... --checkpoint X.pyth
hiera-video visualize masks VIDEO ... [--ratio 0.9]
hiera-video draw-masks docs/masking.png

Each video becomes a PNG with a row of frames for each thing shown, and an mp4 that plays them side
by side. draw-masks needs no video: it draws the masking strategies on a synthetic clip.
"""

import argparse
from collections.abc import Sequence

from hiera_video.commands.options import command_parser
from hiera_video.config import load_config
from hiera_video.visualize.clips import Request, show_evidence, show_mae, show_masks
from hiera_video.visualize.strategies import draw_strategies


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all three kinds."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="any video file")
    parser.add_argument("--output", default="output/pictures", help="folder (%(default)s)")
    parser.add_argument(
        "--start", type=float, metavar="SECONDS", help="of the clip (default: in the middle)"
    )
    parser.add_argument("--cfg", help="YAML file, for weights that come without their config")


def add_mae_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `visualize mae`."""
    add_common_options(parser)
    parser.add_argument(
        "--checkpoint", help="of a pretraining run; with --model also a published name or a URL"
    )
    parser.add_argument("--model", help="a model function such as mae_hiera_base_16x224")
    parser.add_argument("--strategy", help="tube, random or frame (default: the config's)")
    parser.add_argument("--ratio", type=float, help="of mask units hidden (default: the config's)")
    parser.add_argument("--seed", type=int, default=0, help="of the mask (%(default)s)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(%(default)s)")


def add_evidence_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `visualize evidence`."""
    add_common_options(parser)
    parser.add_argument(
        "--checkpoint", help="of a run; with --model a published name, a file or a URL"
    )
    parser.add_argument("--model", help="a model function such as hiera_base_16x224")
    parser.add_argument("--label", help="name or number of a class (default: the most probable)")
    parser.add_argument("--device", help="cpu or cuda:0 (default: cuda if there is one)")


def add_masks_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `visualize masks`."""
    add_common_options(parser)
    parser.add_argument("--ratio", type=float, help="of mask units hidden (default: the config's)")
    parser.add_argument("--seed", type=int, default=0, help="of the masks (%(default)s)")


def run_evidence(arguments: argparse.Namespace) -> int:
    """Draw the evidence for a class; return 1 if a video failed."""
    return show_evidence(
        Request(arguments.videos, arguments.output, arguments.start),
        arguments.checkpoint,
        model=arguments.model,
        cfg=load_config(arguments.cfg) if arguments.cfg else None,
        label=arguments.label,
        device=arguments.device,
    )


def run_mae(arguments: argparse.Namespace) -> int:
    """Draw reconstructions; return 1 if a video failed."""
    return show_mae(
        Request(arguments.videos, arguments.output, arguments.start),
        arguments.checkpoint,
        model=arguments.model,
        cfg=load_config(arguments.cfg) if arguments.cfg else None,
        strategy=arguments.strategy,
        ratio=arguments.ratio,
        seed=arguments.seed,
        device=arguments.device,
    )


def run_masks(arguments: argparse.Namespace) -> int:
    """Draw what each masking strategy leaves visible; return 1 if a video failed."""
    request = Request(arguments.videos, arguments.output, arguments.start)
    return show_masks(request, cfg_path=arguments.cfg, ratio=arguments.ratio, seed=arguments.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures; return 1 if a video failed."""
    parser = command_parser("Draw what models see in videos, as PNG and mp4.")
    what = parser.add_subparsers(required=True, metavar="WHAT")
    for name, words, add_options, run in (
        ("evidence", "where the evidence for a class lies", add_evidence_options, run_evidence),
        ("mae", "original | visible | reconstruction", add_mae_options, run_mae),
        ("masks", "what each masking strategy leaves visible", add_masks_options, run_masks),
    ):
        one = what.add_parser(name, help=words, description=f"Show {words}, as PNG and mp4.")
        add_options(one)
        one.set_defaults(run=run)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def main_mae(argv: Sequence[str] | None = None) -> int:
    """Do what `visualize mae` does, under a name of its own: tools/visualize_mae.py."""
    parser = command_parser("Write original | visible | reconstruction of videos as PNG and mp4.")
    add_mae_options(parser)
    return run_mae(parser.parse_args(argv))


def draw_masks(argv: Sequence[str] | None = None) -> None:
    """Draw the masking strategies as one figure, without a video."""
    parser = command_parser("Draw the masking strategies.")
    parser.add_argument("output", metavar="PNG", help="the file to write")
    parser.add_argument("--ratio", type=float, default=0.9, help="hidden (%(default)s)")
    parser.add_argument("--seed", type=int, default=9, help="of masks and clip (%(default)s)")
    arguments = parser.parse_args(argv)
    draw_strategies(arguments.output, ratio=arguments.ratio, seed=arguments.seed)
    print(f"wrote {arguments.output}")
