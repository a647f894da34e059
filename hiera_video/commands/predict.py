"""Classify a video, every video of a folder, or a stream while it plays.

hiera-video predict VIDEO_OR_FOLDER --checkpoint output/checkpoints/checkpoint_epoch_00075.pyth
hiera-video predict VIDEO --checkpoint X --overlay out.mp4
hiera-video predict --stream /dev/video0 --checkpoint X

Exit status: 0; 1 if a video did not decode (an error names it, the others are classified) or after
any other error; 2 for a wrong command line; 130 after Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence

from hiera_video.commands.options import command_parser
from hiera_video.config import load_config
from hiera_video.data.build import decoding
from hiera_video.data.dataset import Failure
from hiera_video.data.prepare.folders import videos_in
from hiera_video.inference.predictor import Predictor
from hiera_video.inference.printing import FORMATS, Printer, print_windows
from hiera_video.inference.stream import stream_frames
from hiera_video.inference.windows import file_windows, make_grid, stream_windows
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.machine import usable_cores
from hiera_video.utils.outputs import refuse_unwritable
from hiera_video.utils.text import printable


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("Classify videos with a trained checkpoint.")
    parser.add_argument("video", nargs="?", metavar="VIDEO_OR_FOLDER", help="a file, URL or folder")
    parser.add_argument(
        "--checkpoint",
        help="of a run, or an exported folder; with --model a published name, a file or a URL",
    )
    parser.add_argument("--model", help="a model function such as hiera_base_16x224")
    parser.add_argument("--cfg", help="YAML file, for weights that come without their config")
    parser.add_argument(
        "--class-names",
        metavar="FILE",
        help="one name per line; or kinetics400 or ssv2 (default: the checkpoint's)",
    )
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="classes (%(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="table", help="(%(default)s)")
    parser.add_argument("--clips", type=int, metavar="N", help="per video (default: the config's)")
    parser.add_argument(
        "--crops", type=int, metavar="N", help="1 or 3 per clip (default: the config's)"
    )
    parser.add_argument("--device", help="cpu or cuda:0 (default: cuda if there is one)")
    parser.add_argument(
        "--workers",
        type=int,
        help="decoding processes (default: 0 for a file, one per core for a folder)",
    )
    parser.add_argument(
        "--overlay", metavar="OUT.mp4", help="write the video with its labels over time"
    )
    parser.add_argument(
        "--stream",
        metavar="SOURCE",
        help="a camera (/dev/video0), a URL, a pipe (- is standard input) or a growing file",
    )
    parser.add_argument(
        "--every",
        type=float,
        metavar="SECONDS",
        help="from one window to the next (default: half a clip)",
    )
    parser.add_argument(
        "--window", type=float, metavar="SECONDS", help="a window's length, for uniform sampling"
    )
    arguments = parser.parse_args(argv)
    if (arguments.video is None) == (arguments.stream is None):
        parser.error("one of VIDEO_OR_FOLDER and --stream must be given")
    return arguments


def check_options(arguments: argparse.Namespace) -> None:
    """Raise a UserError for options that contradict one another, before the model is loaded."""
    if arguments.top_k < 1:
        raise UserError(f"--top-k must be at least 1, got {arguments.top_k}. Try 5.")
    slides = arguments.overlay is not None or arguments.stream is not None
    for name in ("clips", "crops") if slides else ("every", "window"):
        if (value := getattr(arguments, name)) is not None:  # it would change nothing
            how = "one centre crop slides there" if slides else "only a sliding clip has it"
            raise UserError(
                f"--{name} must go {'without' if slides else 'with'} --overlay or --stream: {how}, "
                f"got {value:g}. Try without --{name}."
            )
    if arguments.overlay is not None:
        if arguments.stream is not None:
            raise UserError("--overlay must go with a video file, got --stream. Try the file.")
        if io.is_dir(arguments.video):
            raise UserError(
                f"--overlay must go with one video, got the folder {arguments.video!r}."
            )
        if not arguments.overlay.lower().endswith(".mp4"):
            raise UserError(f"--overlay must end in .mp4, got {arguments.overlay!r}.")
        refuse_unwritable(arguments.overlay, key="--overlay")


def videos_of(path: str) -> list[str]:
    """Return the video, or those of a folder.

    Raises UserError for a folder without any.
    """
    if not io.is_dir(path):
        return [path]
    found = videos_in(path)
    if not found:
        raise UserError(f"VIDEO_OR_FOLDER must be a video or a folder of videos, got {path!r}.")
    return found


def make_predictor(arguments: argparse.Namespace, *, num_videos: int) -> Predictor:
    """Load the checkpoint; print a note if its classes have no names."""
    workers = arguments.workers
    if workers is None:
        workers = 0 if num_videos == 1 else min(usable_cores(), num_videos)
    predictor = Predictor(
        arguments.checkpoint,
        model=arguments.model,
        device=arguments.device,
        class_names=arguments.class_names,
        num_clips=arguments.clips,
        num_crops=arguments.crops,
        num_workers=workers,
        cfg=load_config(arguments.cfg) if arguments.cfg else None,
    )
    if not predictor.is_named:
        print(
            "note: the checkpoint does not name its classes; they are numbered. Try --class-names.",
            file=sys.stderr,
        )
    return predictor


def predict_files(
    predictor: Predictor, videos: Sequence[str], arguments: argparse.Namespace
) -> int:
    """Print the classes of each video; return how many videos did not decode."""
    failed = 0
    printer = Printer(arguments.format, arguments.top_k)
    for found in predictor.each(list(videos)):
        if isinstance(found, Failure):
            print(f"error: {printable(found.reason)}", file=sys.stderr)
            failed += 1
        else:
            printer.show(found)
    printer.close()
    if failed and len(videos) > 1:
        print(f"{failed} of {len(videos)} videos could not be read", file=sys.stderr)
    return failed


def predict_overlay(predictor: Predictor, video: str, arguments: argparse.Namespace) -> None:
    """Write the video with its labels, and print the classes of each window."""
    from hiera_video.visualize.overlay import write_overlay  # slow to import, rarely needed

    grid = make_grid(predictor.cfg, every_sec=arguments.every, window_sec=arguments.window)
    windows = list(file_windows(predictor, video, grid))
    print_windows(windows, arguments.format, arguments.top_k)
    write_overlay(
        video,
        arguments.overlay,
        windows,
        backend=decoding(predictor.cfg),
        top_k=min(arguments.top_k, 3),
        fallback_fps=predictor.cfg.DATA.TARGET_FPS,
    )
    print(f"written: {arguments.overlay}", file=sys.stderr)


def predict_stream(predictor: Predictor, arguments: argparse.Namespace) -> None:
    """Print each window of a stream as it comes."""
    grid = make_grid(predictor.cfg, every_sec=arguments.every, window_sec=arguments.window)
    data = predictor.cfg.DATA
    frames = stream_frames(
        arguments.stream, fallback_fps=data.TARGET_FPS, square_pixels=data.SQUARE_PIXELS
    )
    windows = stream_windows(predictor, frames, grid)
    print_windows(windows, arguments.format, arguments.top_k)


def main(argv: Sequence[str] | None = None) -> int:
    """Classify; return 1 if a video did not decode."""
    arguments = parse_args(argv)
    check_options(arguments)
    videos = videos_of(arguments.video) if arguments.video is not None else []
    predictor = make_predictor(arguments, num_videos=max(len(videos), 1))
    if arguments.stream is not None:
        predict_stream(predictor, arguments)
    elif arguments.overlay is not None:
        predict_overlay(predictor, videos[0], arguments)
    else:
        return int(predict_files(predictor, videos, arguments) > 0)
    return 0
