"""What models see in videos, written as pictures and films: evidence, masks, reconstructions.

Shape suffixes: B clips (1 here), U mask units; T frames or time steps, H height, W width, C colours
(RGB); THW after `visible` are mask units in time and space.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import PurePath

import torch

from hiera_video.config import Config, load_config
from hiera_video.inference.load import load_trained
from hiera_video.models import masking
from hiera_video.models.build import build_model
from hiera_video.models.hiera_mae import MaskedAutoencoderHiera
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.scores import pick_device
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import find_function
from hiera_video.utils.outputs import make_folder
from hiera_video.utils.seed import seed_for
from hiera_video.utils.text import printable
from hiera_video.visualize.evidence import check_model, draw_evidence, find_evidence
from hiera_video.visualize.films import stems, write_film
from hiera_video.visualize.pictures import grey_hidden
from hiera_video.visualize.reconstruct import (
    Clip,
    draw_mask,
    load_autoencoder,
    read_clip,
    reconstruct,
    to_pixels,
)

_MAE_CAPTION = "Hidden patches as predicted, given the true patch's mean and contrast."
_EVIDENCE_CAPTION = "Orange: for the class. Blue: against it. Tokens of the last stage."
_STRATEGIES = ("tube", "random", "frame")
# Clips and model of configs/Kinetics/HIERA_B_MAE_PT.yaml, wherever the tool is called from.
_PRETRAINING = (
    *("TASK", "ssl", "TEST.ENABLE", "False", "MODEL.ARCH", "hiera_mae"),
    *("MODEL.MODEL_NAME", "mae_hiera_base_16x224"),
)
_MASKED = 0.92  # how grey a hidden unit is: what it hides shows through


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add what all of them take."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="any video file")
    parser.add_argument("--output", default="output/pictures", help="folder (%(default)s)")
    parser.add_argument("--start", type=float, metavar="SECONDS", help="of the clip (the middle)")
    parser.add_argument("--cfg", help="YAML file, for weights that do not come with their config")


def add_mae_options(parser: argparse.ArgumentParser) -> None:
    """Add what `show_mae` takes."""
    add_common_options(parser)
    parser.add_argument(
        "--checkpoint", help="of a pretraining run; with --model also a published name or a URL"
    )
    parser.add_argument("--model", help="a model function such as mae_hiera_base_16x224")
    parser.add_argument("--strategy", help="tube, random or frame (the config's)")
    parser.add_argument("--ratio", type=float, help="share of mask units hidden (the config's)")
    parser.add_argument("--seed", type=int, default=0, help="of the mask (%(default)s)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(%(default)s)")


def add_evidence_options(parser: argparse.ArgumentParser) -> None:
    """Add what `show_evidence` takes."""
    add_common_options(parser)
    parser.add_argument(
        "--checkpoint", help="of a run; with --model a published name, a file or a URL"
    )
    parser.add_argument("--model", help="a model function such as hiera_base_16x224")
    parser.add_argument("--label", help="a class by its name or number (the most probable one)")
    parser.add_argument("--device", help="cpu or cuda:0 (cuda if there is one)")


def add_masks_options(parser: argparse.ArgumentParser) -> None:
    """Add what `show_masks` takes."""
    add_common_options(parser)
    parser.add_argument("--ratio", type=float, help="share of mask units hidden (the config's)")
    parser.add_argument("--seed", type=int, default=0, help="of the masks (%(default)s)")


def show_mae(arguments: argparse.Namespace) -> int:
    """Write original | visible | reconstruction of videos; return 1 if one failed."""
    device = pick_device(arguments.device, key="--device")
    _check_seed(arguments.seed)
    model, cfg = load_autoencoder(
        arguments.checkpoint,
        cfg=load_config(arguments.cfg) if arguments.cfg else None,
        model_name=arguments.model,
    )
    visible_BU = draw_mask(
        model, cfg, strategy=arguments.strategy, ratio=arguments.ratio, seed=arguments.seed
    )
    model.to(device)
    strategy = arguments.strategy or cfg.MASK.STRATEGY
    hidden = f"{strategy} mask, {int(visible_BU.sum())} of {model.num_units} mask units visible"

    def show(video: str, clip: Clip, stem: str) -> str:
        pictures = reconstruct(
            model, clip.clip_CTHW, visible_BU, mean=cfg.DATA.MEAN, std=cfg.DATA.STD
        )
        parts = {
            "original": pictures.original,
            "visible": pictures.visible,
            "reconstruction": pictures.reconstruction,
        }
        # A picture stands for the first frame of its token.
        seconds_T = clip.seconds_T[:: len(clip.seconds_T) // len(pictures.original)]
        title = f"{PurePath(video).name}: {hidden}"
        written = write_film(stem, parts, seconds_T, title=title, caption=_MAE_CAPTION)
        return f"{video} ({hidden}): {written}"

    return _show_each(arguments, model, cfg, show, ending="_mae")


def show_evidence(arguments: argparse.Namespace) -> int:
    """Write where the evidence for a class lies in videos; return 1 if one failed."""
    found = load_trained(
        arguments.checkpoint,
        model=arguments.model,
        cfg=load_config(arguments.cfg) if arguments.cfg else None,
        device=arguments.device,
    )
    model, cfg, names = found.model, found.cfg, found.class_names
    wanted = None if arguments.label is None else _label_of(arguments.label, names)
    check_model(model)
    assert isinstance(model, HieraEncoder)

    def show(video: str, clip: Clip, stem: str) -> str:
        evidence = find_evidence(model, clip.clip_CTHW.to(found.device), wanted)
        frames_THWC = to_pixels(clip.clip_CTHW, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
        parts = {"video": frames_THWC, "evidence": draw_evidence(frames_THWC, evidence.map_THW)}
        name = names[evidence.label] if names else f"class {evidence.label}"
        what = f"{name}, {evidence.score:.1%}"
        title = f"{PurePath(video).name}: {what}"
        written = write_film(stem, parts, clip.seconds_T, title=title, caption=_EVIDENCE_CAPTION)
        return f"{video} ({what}): {written}"

    return _show_each(arguments, model, cfg, show, ending="_evidence")


def show_masks(arguments: argparse.Namespace) -> int:
    """Write what each masking strategy leaves visible of videos; return 1 if one failed."""
    _check_seed(arguments.seed)
    cfg = load_config(arguments.cfg) if arguments.cfg else load_config(None, _PRETRAINING)
    with torch.device("meta"):  # its shapes are wanted, not its weights
        model = build_model(cfg)
    if not isinstance(model, MaskedAutoencoderHiera) or len(model.input_size) != 3:
        raise UserError(
            f"--cfg must be one of pretraining on videos, TASK ssl, got {arguments.cfg!r}. Try "
            "configs/Kinetics/HIERA_B_MAE_PT.yaml."
        )
    ratio = cfg.MASK.RATIO if arguments.ratio is None else arguments.ratio
    if not 0 < ratio < 1:
        raise UserError(f"--ratio must be above 0 and below 1, got {ratio}. Try 0.9.")
    units = {
        name: _draw(name, model, ratio=ratio, seed=arguments.seed).numpy() for name in _STRATEGIES
    }

    def show(video: str, clip: Clip, stem: str) -> str:
        # The first frame of each time step of the mask units.
        steps = slice(None, None, len(clip.seconds_T) // model.unit_grid[0])
        frames_THWC = to_pixels(clip.clip_CTHW, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)[steps]
        parts = {"video": frames_THWC} | {
            name: grey_hidden(frames_THWC, visible_THW, strength=_MASKED)
            for name, visible_THW in units.items()
        }
        title = f"{PurePath(video).name}: {ratio:.0%} of the mask units hidden"
        return f"{video}: {write_film(stem, parts, clip.seconds_T[steps], title=title)}"

    return _show_each(arguments, model, cfg, show, ending="_masks")


def _draw(name: str, model: MaskedAutoencoderHiera, *, ratio: float, seed: int) -> torch.Tensor:
    """Return what a strategy leaves visible, bool [T, H, W] over the unit grid."""
    draw = find_function(masking, name, key="strategy")
    generator = torch.Generator().manual_seed(seed_for("picture", seed))
    visible_BU: torch.Tensor = draw(model.unit_grid, num_clips=1, ratio=ratio, generator=generator)
    return visible_BU[0].unflatten(0, model.unit_grid)


def _show_each(
    arguments: argparse.Namespace,
    model: HieraEncoder,
    cfg: Config,
    show: Callable[[str, Clip, str], str],
    *,
    ending: str,
) -> int:
    """Read each video's clip and show it; name those that fail, and return 1 if there were any."""
    if arguments.start is not None and cfg.DATA.SAMPLING != "dense":
        raise UserError(
            f"--start needs DATA.SAMPLING dense, got {cfg.DATA.SAMPLING}, whose clips span the "
            "whole video. Try without --start."
        )
    make_folder(arguments.output, key="--output")
    videos, num_failed = arguments.videos, 0
    for video, stem in zip(videos, stems(videos, arguments.output, ending=ending), strict=True):
        try:
            clip = read_clip(video, model, cfg, start_sec=arguments.start)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            num_failed += 1
            continue
        print(printable(show(video, clip, stem), keep="\n"))
    if num_failed:
        print(f"{num_failed} of {len(videos)} videos could not be shown", file=sys.stderr)
    return int(num_failed > 0)


def _label_of(word: str, names: Sequence[str]) -> int:
    if word in names:
        return list(names).index(word)
    if word.isdecimal():
        return int(word)
    raise UserError(
        f"--label must be a class's name or number, got {word!r}. The classes are: "
        f"{', '.join(names[:10]) or 'without names'}{', ...' if len(names) > 10 else ''}."
    )


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"--seed must be at least 0, got {seed}. Try 0.")
