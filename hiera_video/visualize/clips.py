"""Write evidence, masks and reconstructions of videos as pictures and films.

Shape suffixes: B clips (1 here), U mask units; T frames or time steps, H height, W width, C colours
(RGB); THW after `visible` are mask units in time and space.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import torch

from hiera_video.config import Config, load_config
from hiera_video.inference.load import load_trained
from hiera_video.models import masking
from hiera_video.models.build import build_model
from hiera_video.models.parts.autoencoder import MaskedAutoencoder
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.patches import TakesClips
from hiera_video.models.parts.scores import pick_device
from hiera_video.utils.errors import UserError
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

_MAE_CAPTION = "Hidden patches show the prediction, rescaled to the true mean and contrast."
_EVIDENCE_CAPTION = "Orange: for the class. Blue: against it. Tokens of the last stage."
_STRATEGIES = ("tube", "random", "frame")
# Clips and model of configs/Kinetics/HIERA_B_MAE_PT.yaml, independent of the working directory.
_PRETRAINING = (
    *("TASK", "ssl", "TEST.ENABLE", "False", "MODEL.ARCH", "hiera_mae"),
    *("MODEL.MODEL_NAME", "mae_hiera_base_16x224"),
)
_MASKED = 0.92  # share of grey in a hidden unit, so that its content stays faintly visible


@dataclass(frozen=True)
class Request:
    """Videos to draw, the folder of the pictures, and where each clip starts (None: the middle)."""

    videos: Sequence[str]
    output: str
    start_sec: float | None = None


def show_mae(
    request: Request,
    checkpoint: str | None,
    *,
    model: str | None = None,
    cfg: Config | None = None,
    strategy: str | None = None,
    ratio: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> int:
    """Write original | visible | reconstruction of videos; return 1 if one failed.

    `strategy` and `ratio` of the mask are the config's if None. `model` names a model function,
    for weights without a config; `cfg` replaces the checkpoint's config.
    """
    torch_device = pick_device(device, key="--device")
    _check_seed(seed)
    autoencoder, its_cfg = load_autoencoder(checkpoint, cfg=cfg, model_name=model)
    visible_BU = draw_mask(autoencoder, its_cfg, strategy=strategy, ratio=ratio, seed=seed)
    autoencoder.to(torch_device)
    hidden = (
        f"{strategy or its_cfg.MASK.STRATEGY} mask, {int(visible_BU.sum())} of "
        f"{autoencoder.num_units} mask units visible"
    )

    def show(video: str, clip: Clip, stem: str) -> str:
        pictures = reconstruct(
            autoencoder, clip.clip_CTHW, visible_BU, mean=its_cfg.DATA.MEAN, std=its_cfg.DATA.STD
        )
        parts = {
            "original": pictures.original,
            "visible": pictures.visible,
            "reconstruction": pictures.reconstruction,
        }
        # A picture shows the first frame of its token.
        seconds_T = clip.seconds_T[:: len(clip.seconds_T) // len(pictures.original)]
        title = f"{PurePath(video).name}: {hidden}"
        written = write_film(stem, parts, seconds_T, title=title, caption=_MAE_CAPTION)
        return f"{video} ({hidden}): {written}"

    return _show_each(request, autoencoder, its_cfg, show, ending="_mae")


def show_evidence(
    request: Request,
    checkpoint: str | None,
    *,
    model: str | None = None,
    cfg: Config | None = None,
    label: str | None = None,
    device: str | None = None,
) -> int:
    """Write pictures of the evidence for a class in videos; return 1 if one failed.

    `label` is the class's name or number; None: the most probable class of each video.
    """
    found = load_trained(checkpoint, model=model, cfg=cfg, device=device)
    classifier, its_cfg, names = found.model, found.cfg, found.class_names
    wanted = None if label is None else _label_of(label, names)
    check_model(classifier)
    assert isinstance(classifier, HieraEncoder)

    def show(video: str, clip: Clip, stem: str) -> str:
        evidence = find_evidence(classifier, clip.clip_CTHW.to(found.device), wanted)
        frames_THWC = to_pixels(clip.clip_CTHW, mean=its_cfg.DATA.MEAN, std=its_cfg.DATA.STD)
        parts = {"video": frames_THWC, "evidence": draw_evidence(frames_THWC, evidence.map_THW)}
        name = names[evidence.label] if names else f"class {evidence.label}"
        what = f"{name}, {evidence.score:.1%}"
        title = f"{PurePath(video).name}: {what}"
        written = write_film(stem, parts, clip.seconds_T, title=title, caption=_EVIDENCE_CAPTION)
        return f"{video} ({what}): {written}"

    return _show_each(request, classifier, its_cfg, show, ending="_evidence")


def show_masks(
    request: Request, *, cfg_path: str | None = None, ratio: float | None = None, seed: int = 0
) -> int:
    """Write what each masking strategy leaves visible of videos; return 1 if one failed.

    The clips and the mask ratio are those of the pretraining config at `cfg_path`; None: those of
    configs/Kinetics/HIERA_B_MAE_PT.yaml.
    """
    _check_seed(seed)
    cfg = load_config(cfg_path) if cfg_path else load_config(None, _PRETRAINING)
    with torch.device("meta"):  # only its shapes are needed
        model = build_model(cfg)
    if not isinstance(model, MaskedAutoencoder) or len(model.input_size) != 3:
        raise UserError(
            f"--cfg must be one of pretraining on videos, TASK ssl, got {cfg_path!r}. Try "
            "configs/Kinetics/HIERA_B_MAE_PT.yaml."
        )
    ratio = cfg.MASK.RATIO if ratio is None else ratio
    if not 0 < ratio < 1:
        raise UserError(f"--ratio must be above 0 and below 1, got {ratio}. Try 0.9.")
    units = {name: _draw(name, model, ratio=ratio, seed=seed).numpy() for name in _STRATEGIES}

    def show(video: str, clip: Clip, stem: str) -> str:
        # Selects the first frame of each time step of the mask units.
        steps = slice(None, None, len(clip.seconds_T) // model.unit_grid[0])
        frames_THWC = to_pixels(clip.clip_CTHW, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)[steps]
        parts = {"video": frames_THWC} | {
            name: grey_hidden(frames_THWC, visible_THW, strength=_MASKED)
            for name, visible_THW in units.items()
        }
        title = f"{PurePath(video).name}: {ratio:.0%} of the mask units hidden"
        return f"{video}: {write_film(stem, parts, clip.seconds_T[steps], title=title)}"

    return _show_each(request, model, cfg, show, ending="_masks")


def _draw(name: str, model: MaskedAutoencoder, *, ratio: float, seed: int) -> torch.Tensor:
    """Draw the visible units of a strategy, bool [T, H, W] over the unit grid."""
    draw = masking.find_strategy(name, key="strategy")
    generator = torch.Generator().manual_seed(seed_for("picture", seed))
    visible_BU: torch.Tensor = draw(model.unit_grid, num_clips=1, ratio=ratio, generator=generator)
    return visible_BU[0].unflatten(0, model.unit_grid)


def _show_each(
    request: Request,
    model: TakesClips,
    cfg: Config,
    show: Callable[[str, Clip, str], str],
    *,
    ending: str,
) -> int:
    """Read and show each video's clip; print the error of each that fails, and return 1 if any."""
    if request.start_sec is not None and cfg.DATA.SAMPLING != "dense":
        raise UserError(
            f"--start needs DATA.SAMPLING dense, got {cfg.DATA.SAMPLING}, whose clips span the "
            "whole video. Try without --start."
        )
    make_folder(request.output, key="--output")
    videos, num_failed = request.videos, 0
    for video, stem in zip(videos, stems(videos, request.output, ending=ending), strict=True):
        try:
            clip = read_clip(video, model, cfg, start_sec=request.start_sec)
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
