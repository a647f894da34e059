"""Say what a video shows, or each video of a folder, or a stream while it plays.

python tools/predict.py VIDEO_OR_FOLDER --checkpoint output/checkpoints/checkpoint_epoch_00075.pyth
python tools/predict.py VIDEO --checkpoint X --overlay out.mp4
python tools/predict.py --stream /dev/video0 --checkpoint X

Exit status: 0; 1 if a video did not decode (it is named, the others are answered) or nothing could
be done; 2 for a wrong command line; 130 after Ctrl-C.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence

import simplejson

from hiera_video.config import load_config
from hiera_video.data.build import decoding
from hiera_video.data.dataset import Failure
from hiera_video.data.prepare.folders import videos_in
from hiera_video.inference.predictor import Prediction, Predictor
from hiera_video.inference.stream import stream_frames
from hiera_video.inference.windows import Window, file_windows, make_grid, stream_windows
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.machine import usable_cores
from hiera_video.utils.outputs import refuse_unwritable
from hiera_video.utils.text import printable

_BAR = 20  # characters of a full bar


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Say what videos show, by a trained checkpoint.")
    parser.add_argument("video", nargs="?", metavar="VIDEO_OR_FOLDER", help="a file, URL or folder")
    parser.add_argument(
        "--checkpoint",
        help="of a run, or a folder of tools/export.py; with --model a published name, file or URL",
    )
    parser.add_argument("--model", help="a model function such as hiera_base_16x224")
    parser.add_argument("--cfg", help="YAML file, for weights that do not come with their config")
    parser.add_argument(
        "--class-names", metavar="FILE", help="a name a line; or kinetics400, ssv2 (the checkpoint)"
    )
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="classes (%(default)s)")
    parser.add_argument(
        "--format", choices=("table", "json", "csv"), default="table", help="(%(default)s)"
    )
    parser.add_argument("--clips", type=int, metavar="N", help="along each video (the config's)")
    parser.add_argument("--crops", type=int, metavar="N", help="1 or 3 a clip (the config's)")
    parser.add_argument("--device", help="cpu or cuda:0 (cuda if there is one)")
    parser.add_argument(
        "--workers", type=int, help="decoding processes (0 for a file, one per core for a folder)"
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
        "--every", type=float, metavar="SECONDS", help="from window to window (half a clip)"
    )
    parser.add_argument(
        "--window", type=float, metavar="SECONDS", help="a window's length, for uniform sampling"
    )
    arguments = parser.parse_args(argv)
    if (arguments.video is None) == (arguments.stream is None):
        parser.error("one of VIDEO_OR_FOLDER and --stream must be given")
    return arguments


def check_options(arguments: argparse.Namespace) -> None:
    """Raise a UserError for options that cannot be, before the model is read."""
    if arguments.top_k < 1:
        raise UserError(f"--top-k must be at least 1, got {arguments.top_k}. Try 5.")
    slides = arguments.overlay is not None or arguments.stream is not None
    for name in ("clips", "crops") if slides else ("every", "window"):
        if (value := getattr(arguments, name)) is not None:  # it would change nothing
            how = "a sliding clip has one crop" if slides else "only a sliding clip has it"
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
    """Load the checkpoint; say where its classes have no names."""
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
    """Print what each video shows; return how many did not decode."""
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
    """Write the video with its labels, and print what it shows in each of its windows."""
    from hiera_video.visualize.overlay import write_overlay  # slow to import, and seldom wanted

    grid = make_grid(predictor.cfg, every_sec=arguments.every, window_sec=arguments.window)
    windows = list(file_windows(predictor, video, grid))
    show_windows(windows, arguments)
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
    """Print a line for each window of a stream as it comes."""
    grid = make_grid(predictor.cfg, every_sec=arguments.every, window_sec=arguments.window)
    data = predictor.cfg.DATA
    frames = stream_frames(
        arguments.stream, fallback_fps=data.TARGET_FPS, square_pixels=data.SQUARE_PIXELS
    )
    show_windows(stream_windows(predictor, frames, grid), arguments)


def show_windows(windows: Iterable[Window], arguments: argparse.Namespace) -> None:
    """Print windows as they come: a line each, of text or json, or for csv a line a class."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if arguments.format == "csv":
        writer.writerow(["start_sec", "end_sec", "rank", "label", "name", "score"])
    for window in windows:
        top = window.prediction.top(arguments.top_k)
        start, end = round(window.start_sec, 3), round(window.end_sec, 3)
        if arguments.format == "csv":
            for rank, one in enumerate(top, 1):
                writer.writerow([start, end, rank, one.label, exact(one.name), f"{one.score:.6f}"])
        elif arguments.format == "json":
            entry = {"start_sec": start, "end_sec": end, "predictions": as_plain(top)}
            print(simplejson.dumps(entry))
        else:
            names = ", ".join(f"{printable(one.name)} {100 * one.score:.1f} %" for one in top)
            print(f"{start:8.2f} - {end:.2f} s  {names}")
        sys.stdout.flush()


class Printer:
    """Prints predictions one after the other, as one table, one json list or one csv."""

    def __init__(self, form: str, top_k: int) -> None:
        self._form = form
        self._top_k = top_k
        self._first = True
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        if form == "csv":
            self._writer.writerow(["path", "rank", "label", "name", "score"])

    def show(self, found: Prediction) -> None:
        """Print a video's classes."""
        top = found.top(self._top_k)
        if self._form == "csv":
            for rank, one in enumerate(top, 1):
                row = [exact(found.path), rank, one.label, exact(one.name), f"{one.score:.6f}"]
                self._writer.writerow(row)
        elif self._form == "json":
            entry = {"path": found.path, "predictions": as_plain(top)}
            print(("[" if self._first else ",") + "\n  " + simplejson.dumps(entry), end="")
        else:
            print(table(found, self._top_k))
        self._first = False
        sys.stdout.flush()

    def close(self) -> None:
        """End what is to be ended."""
        if self._form == "json":
            print("[]" if self._first else "\n]")


def exact(name: str) -> str:
    """Return a name for a csv: as it is for a program to read, printable on a terminal."""
    return printable(name) if sys.stdout.isatty() else name


def as_plain(top: Sequence) -> list[dict[str, object]]:
    """Return classes as plain types."""
    return [{**one._asdict(), "score": round(one.score, 6)} for one in top]


def table(found: Prediction, top_k: int) -> str:
    """Return a video's classes, a line each with a bar."""
    top = [(printable(one.name), one.score) for one in found.top(top_k)]
    width = max(len(name) for name, _ in top)
    lines = [
        f"  {name:{width}}  {100 * score:5.1f} %  {'#' * round(_BAR * score)}".rstrip()
        for name, score in top
    ]
    return "\n".join([printable(found.path), *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Predict; return 1 if a video did not decode."""
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
