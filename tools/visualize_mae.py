"""Show what a masked autoencoder makes of videos: original, visible part and reconstruction.

python tools/visualize_mae.py VIDEO ... --checkpoint output/checkpoints/checkpoint_epoch_00800.pyth
python tools/visualize_mae.py VIDEO ... --model mae_hiera_base_16x224 --strategy random
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import PurePath

import torch

from hiera_video.config import Config, load_config
from hiera_video.engine.pictures import (
    enlarged,
    labelled_grid,
    make_folder,
    save_mp4,
    save_png,
    side_by_side,
)
from hiera_video.engine.reconstruct import (
    Clip,
    Pictures,
    draw_mask,
    load_autoencoder,
    read_clip,
    reconstruct,
)
from hiera_video.models.hiera_mae import MaskedAutoencoderHiera
from hiera_video.utils import cli
from hiera_video.utils.errors import UserError

CAPTION = "Hidden patches as predicted, given the true patch's mean and contrast."
CELL_PX, PANEL_PX = 112, 224  # smaller pictures are enlarged to these, in the grid and the film
MAX_FPS = 4  # slow enough to look at; 16x4 clips at 30 frames per second have 3.75 steps a second


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Write original | visible | reconstruction of videos as PNG and mp4."
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="any video file")
    parser.add_argument(
        "--checkpoint", help="of a pretraining run; with --model also a published name or a URL"
    )
    parser.add_argument("--cfg", help="YAML file, for weights that do not come with their config")
    parser.add_argument("--model", help="a model function such as mae_hiera_base_16x224")
    parser.add_argument("--output", default="output/pictures", help="folder (%(default)s)")
    parser.add_argument("--strategy", help="tube, random or frame (the config's)")
    parser.add_argument("--ratio", type=float, help="share of mask units hidden (the config's)")
    parser.add_argument("--seed", type=int, default=0, help="of the mask (%(default)s)")
    parser.add_argument("--start", type=float, metavar="SECONDS", help="of the clip (the middle)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(%(default)s)")
    return parser.parse_args(argv)


def write_pictures(stem: str, clip: Clip, pictures: Pictures, *, title: str) -> tuple[str, str]:
    """Write STEM.png and STEM.mp4; return their paths."""
    parts = {
        "original": pictures.original,
        "visible": pictures.visible,
        "reconstruction": pictures.reconstruction,
    }
    # A picture stands for the first frame of its token.
    seconds = clip.seconds_T[:: len(clip.seconds_T) // len(pictures.original)]
    rows = {label: enlarged(frames, at_least=CELL_PX) for label, frames in parts.items()}
    columns = [f"{sec:.2f} s" for sec in seconds]
    save_png(f"{stem}.png", labelled_grid(rows, columns, title=title, caption=CAPTION))

    panels = {label: enlarged(frames, at_least=PANEL_PX) for label, frames in parts.items()}
    duration_sec = seconds[-1] - seconds[0]
    fps = round((len(seconds) - 1) / duration_sec) if duration_sec > 0 else MAX_FPS
    save_mp4(f"{stem}.mp4", side_by_side(panels), fps=min(max(fps, 1), MAX_FPS))
    return f"{stem}.png", f"{stem}.mp4"


def stems(videos: Sequence[str], folder: str) -> list[str]:
    """Return where the pictures of each video go, without ending; no two are the same."""
    taken: list[str] = []
    for video in videos:
        name = PurePath(video).stem + "_mae"
        number = sum(PurePath(other).name.startswith(name) for other in taken)
        while (stem := os.path.join(folder, name + (f"_{number + 1}" if number else ""))) in taken:
            number += 1
        taken.append(stem)
    return taken


def describe(
    model: MaskedAutoencoderHiera, cfg: Config, arguments: argparse.Namespace, visible: torch.Tensor
) -> str:
    """Say what is hidden."""
    strategy = arguments.strategy or cfg.MASK.STRATEGY
    return f"{strategy} mask, {int(visible.sum())} of {model.num_units} mask units visible"


def check_options(arguments: argparse.Namespace) -> None:
    """Raise a UserError for a device that is not there or a seed below 0."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device must be cpu without a CUDA device, got cuda. Try --device cpu.")
    if arguments.seed < 0:
        raise UserError(f"--seed must be at least 0, got {arguments.seed}. Try 0.")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures; return 1 if a video failed."""
    arguments = parse_args(argv)
    check_options(arguments)
    model, cfg = load_autoencoder(
        arguments.checkpoint,
        cfg=load_config(arguments.cfg) if arguments.cfg else None,
        model_name=arguments.model,
    )
    if arguments.start is not None and cfg.DATA.SAMPLING != "dense":
        raise UserError(
            f"--start needs DATA.SAMPLING dense, got {cfg.DATA.SAMPLING}, whose clips span the "
            "whole video. Try without --start."
        )
    visible = draw_mask(
        model, cfg, strategy=arguments.strategy, ratio=arguments.ratio, seed=arguments.seed
    )
    make_folder(arguments.output, key="--output")
    model.to(arguments.device)

    hidden, failed = describe(model, cfg, arguments, visible), 0
    for video, stem in zip(
        arguments.videos, stems(arguments.videos, arguments.output), strict=True
    ):
        try:
            clip = read_clip(video, model, cfg, start_sec=arguments.start)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        pictures = reconstruct(model, clip.clip_CTHW, visible, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
        title = f"{PurePath(video).name}: {hidden}"
        print(
            f"{video} ({hidden}): " + ", ".join(write_pictures(stem, clip, pictures, title=title))
        )
    if failed:
        print(f"{failed} of {len(arguments.videos)} videos could not be shown", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    cli.run(main)
