"""Write the features of videos from a trained checkpoint, one file per video.

hiera-video features FOLDER --checkpoint X --output features
hiera-video features --data-dir my_videos --split train --checkpoint X --output features

The same command continues a stopped run. Exit status: 0; 1 if a video did not decode (bad.csv says
why, the others are done) or after any other error; 2 for a wrong command line; 130 after Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from hiera_video.commands.options import command_parser
from hiera_video.config import Config, load_config
from hiera_video.data.build import read_records
from hiera_video.data.dataset import Failure
from hiera_video.data.prepare.folders import videos_in
from hiera_video.data.records import SPLITS
from hiera_video.inference.features import (
    ENDINGS,
    FeatureKind,
    check_kind,
    extract,
    feature_file,
    is_done,
    last_stage,
    remove_unfinished,
    settle,
    write_csv,
    write_features,
)
from hiera_video.inference.load import Trained, load_trained
from hiera_video.inference.predictor import with_views
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.outputs import make_folder
from hiera_video.utils.text import printable


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("Write the features of videos, one file per video.")
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="every video below it")
    parser.add_argument("--data-dir", metavar="DIR", help="or the videos of the list DIR/SPLIT.csv")
    parser.add_argument(
        "--cfg", help="or the videos of a config's lists; it replaces the checkpoint's config"
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="of a list (%(default)s)")
    parser.add_argument("--checkpoint", help="of a run; with --model a published name or a file")
    parser.add_argument("--model", help="a model function such as mae_hiera_base_16x224")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the features")
    parser.add_argument("--per", choices=("clip", "video"), default="video", help="(%(default)s)")
    parser.add_argument(
        "--features", choices=("pooled", "map"), default="pooled", help="(%(default)s)"
    )
    parser.add_argument("--stage", type=int, help="of the model, from 1 (default: the last)")
    parser.add_argument("--format", choices=tuple(ENDINGS), default="npz", help="(%(default)s)")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="(%(default)s)"
    )
    parser.add_argument("--clips", type=int, metavar="N", help="per video (default: the config's)")
    parser.add_argument(
        "--crops", type=int, metavar="N", help="1 or 3 per clip (default: the config's)"
    )
    parser.add_argument("--device", help="cpu or cuda:0 (default: cuda if there is one)")
    parser.add_argument("--workers", type=int, help="decoding processes (default: the config's)")
    arguments = parser.parse_args(argv)
    if bool(arguments.folder) + bool(arguments.data_dir) + bool(arguments.cfg) != 1:
        parser.error("one of FOLDER, --data-dir and --cfg must be given")
    return arguments


def videos_of(arguments: argparse.Namespace, cfg: Config | None) -> tuple[list[str], str]:
    """Return the paths of the videos, each once, and the folder that they belong to.

    Raises:
        UserError: there are none, or the list is wrong.
    """
    if arguments.folder:
        if not io.is_dir(arguments.folder):
            raise UserError(f"FOLDER must be a folder of videos, got {arguments.folder!r}.")
        found, root = videos_in(arguments.folder), arguments.folder
    else:
        if cfg is None:
            cfg = load_config(None, ["DATA.PATH_TO_DATA_DIR", arguments.data_dir])
        # Features need no labels, and the classes of the list may not be the checkpoint's.
        records = read_records(replace(cfg, TASK="ssl"), arguments.split)
        found = [record.path for record in records]
        root = cfg.DATA.PATH_PREFIX or cfg.DATA.PATH_TO_DATA_DIR
    if not found:
        raise UserError(f"FOLDER must be a folder of videos, got {arguments.folder!r}.")
    return list(dict.fromkeys(found)), root


def load(arguments: argparse.Namespace, cfg: Config | None) -> tuple[Trained, FeatureKind]:
    """Load the checkpoint, and check that it gives the features that were asked for."""
    trained = load_trained(
        arguments.checkpoint,
        model=arguments.model,
        cfg=cfg,
        device=arguments.device,
        classifier=False,
    )
    workers = arguments.workers
    views = with_views(
        trained.cfg,
        num_clips=arguments.clips,
        num_crops=arguments.crops,
        num_workers=trained.cfg.DATA_LOADER.NUM_WORKERS if workers is None else workers,
    )
    trained = replace(trained, cfg=views)
    kind = FeatureKind(
        per=arguments.per,
        features=arguments.features,
        stage=last_stage(trained.model) if arguments.stage is None else arguments.stage,
        dtype=arguments.dtype,
        form=arguments.format,
    )
    check_kind(kind, trained)
    return trained, kind


def extract_all(trained: Trained, kind: FeatureKind, files: dict[str, str]) -> dict[str, str]:
    """Write the features of the videos that have none yet; return the reasons of bad videos."""
    left = [video for video, file in files.items() if not is_done(file, video)]
    if len(left) < len(files):
        print(f"{len(files) - len(left)} of {len(files)} videos are done already", file=sys.stderr)
    bad: dict[str, str] = {}
    with tqdm(total=len(left), unit="video", disable=None) as bar:
        try:
            for video, found in extract(trained, left, kind):
                if isinstance(found, Failure):
                    bad[video] = found.reason.removeprefix(f"{printable(video)}: ")
                    bar.write(f"error: {printable(found.reason)}", file=sys.stderr)
                else:
                    write_features(files[video], video, found, kind)
                bar.update()
        except KeyboardInterrupt:
            print("\nthe same command goes on from here", file=sys.stderr)
            raise
    return bad


def main(argv: Sequence[str] | None = None) -> int:
    """Extract; return 1 if a video did not decode."""
    arguments = parse_args(argv)
    cfg = load_config(arguments.cfg) if arguments.cfg else None
    videos, root = videos_of(arguments, cfg)
    trained, kind = load(arguments, cfg)
    output = arguments.output
    make_folder(output, key="--output")
    settle(output, trained, kind, root=root)
    remove_unfinished(output)
    files = {video: feature_file(output, video, root=root, kind=kind) for video in videos}
    bad = extract_all(trained, kind, files)
    rows = [(v, os.path.relpath(file, output)) for v, file in files.items() if v not in bad]
    write_csv(os.path.join(output, "index.csv"), ["path", "file"], rows)
    write_csv(os.path.join(output, "bad.csv"), ["path", "reason"], bad.items())
    print(f"features of {len(rows)} of {len(videos)} videos are in {output}, listed in index.csv")
    if bad:
        print(f"{len(bad)} videos could not be read: see {output}/bad.csv", file=sys.stderr)
    return int(bool(bad))
