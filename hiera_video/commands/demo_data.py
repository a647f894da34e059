"""Make the demo data: a few thousand small videos whose classes are motions. No downloads.

hiera-video demo-data OUTPUT_DIR [--num-train-per-class N] [--num-val-per-class M] ...
"""

import argparse
import time
from collections.abc import Sequence

from hiera_video.commands.options import command_parser
from hiera_video.data.synthetic.manifest import DemoParameters
from hiera_video.data.synthetic.videos import make_demo_data


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    default = DemoParameters()
    parser = command_parser("Write the demo data: small H.264 videos whose classes are motions.")
    parser.add_argument(
        "output_dir", metavar="OUTPUT_DIR", help="a new folder, or one of an earlier call"
    )
    parser.add_argument("--num-train-per-class", type=int, default=default.num_train_per_class)
    parser.add_argument("--num-val-per-class", type=int, default=default.num_val_per_class)
    parser.add_argument("--size", type=int, default=default.size, help="side in pixels")
    parser.add_argument("--frames", type=int, default=default.num_frames, help="frames per video")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace demo data made with other parameters"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the data unless it is there already; print one line."""
    args = parse_args(argv)
    start = time.perf_counter()
    made = make_demo_data(
        args.output_dir,
        DemoParameters(
            num_train_per_class=args.num_train_per_class,
            num_val_per_class=args.num_val_per_class,
            size=args.size,
            num_frames=args.frames,
            seed=args.seed,
        ),
        num_workers=args.workers,
        overwrite=args.overwrite,
    )
    how = f"made in {time.perf_counter() - start:.1f} s" if made.made else "already there"
    print(
        f"Demo data {how}: {made.num_videos} videos, {made.num_classes} classes, "
        f"{made.num_bytes / 1e6:.1f} MB, in {made.folder}"
    )
