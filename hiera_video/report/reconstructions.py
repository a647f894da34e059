"""Show a few training videos as a pretraining run's autoencoder sees and predicts them.

Shape suffixes: T frames, H height, W width (pixels), C colour (RGB).
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hiera_video.config import Config
from hiera_video.data.build import read_records
from hiera_video.data.shards.members import file_behind
from hiera_video.report.images import jpeg_address, png_address, short_path
from hiera_video.report.parts import Missing, attempt
from hiera_video.report.run_files import Run
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.visualize.pictures import enlarged
from hiera_video.visualize.reconstruct import (
    draw_mask,
    load_autoencoder,
    read_clip,
    reconstruct,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_STEPS = 8  # time steps shown
_CELL_PX, _GAP_PX = 96, 4
_LOSSLESS_UP_TO = 64  # pixels of a side: in pictures this small, JPEG artefacts would show


@dataclass(frozen=True, slots=True)
class Strip:
    """The time steps of a video in a row, as a `data:` URL, and the size in pixels."""

    label: str
    address: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """The strips of a video (original, visible part, reconstruction), or why there are none."""

    file_name: str
    strips: list[Strip] | Missing


@dataclass(frozen=True, slots=True)
class Reconstructions:
    """The reconstructions of one run; `mask` describes the mask, `source` names the weights."""

    mask: str
    source: str
    videos: list[Reconstruction]


def reconstructions(run: Run, number: int) -> Reconstructions | Missing:
    """Reconstruct `number` training videos with the last checkpoint of a pretraining run."""
    if run.checkpoint is None:
        return Missing("There is no checkpoint in this folder, so nothing can be reconstructed.")
    return attempt("Nothing could be reconstructed", lambda: _reconstructions(run, number))


def _reconstructions(run: Run, number: int) -> Reconstructions:
    model, cfg = load_autoencoder(run.checkpoint)
    visible_BU = draw_mask(model, cfg, strategy=None, ratio=None, seed=0)

    def show(path: str) -> list[Strip]:
        clip = read_clip(path, model, cfg)
        pictures = reconstruct(
            model, clip.clip_CTHW, visible_BU, mean=cfg.DATA.MEAN, std=cfg.DATA.STD
        )
        return [
            _strip(item.name, getattr(pictures, item.name)) for item in dataclasses.fields(pictures)
        ]

    videos = [
        Reconstruction(short_path(path), attempt("No pictures", partial(show, path)))
        for path in _some_videos(cfg, number)
    ]
    units = f"{int(visible_BU.sum())} of {model.num_units} mask units visible"
    return Reconstructions(f"{cfg.MASK.STRATEGY} mask, {units}", str(run.checkpoint), videos)


def _some_videos(cfg: Config, number: int) -> list[str]:
    """Return paths of videos on this machine, spread evenly over the training list."""
    records = read_records(cfg, "train")
    # Three times as many are tried, since some may have been removed.
    tried = np.linspace(0, len(records) - 1, min(3 * number, len(records))).astype(int)
    order = [tried[place] for start in range(3) for place in range(start, len(tried), 3)]
    paths = [records[int(place)].path for place in order]
    there = [p for p in paths if not io.is_url(file_behind(p)) and io.is_file(file_behind(p))]
    if not there:
        raise UserError(f"none of {len(paths)} videos in the training list is on this machine.")
    return there[:number]


def _strip(label: str, frames_THWC: np.ndarray) -> Strip:
    steps = np.linspace(0, len(frames_THWC) - 1, min(MAX_STEPS, len(frames_THWC))).astype(int)
    cells = list(frames_THWC[steps])
    width = cells[0].shape[1]
    gap_HWC = np.full((cells[0].shape[0], max(_GAP_PX * width // _CELL_PX, 1), 3), 128, np.uint8)
    parts: Sequence[np.ndarray] = [part for cell in cells for part in (gap_HWC, cell)][1:]
    strip_HWC = np.concatenate(parts, axis=1)
    if width <= _LOSSLESS_UP_TO:
        strip_HWC = enlarged(strip_HWC[None], at_least=_CELL_PX * len(cells))[0]
        address = png_address(strip_HWC)
    else:
        address = jpeg_address(strip_HWC, longest_px=(2 * _CELL_PX + _GAP_PX) * len(cells))
    return Strip(label, address, strip_HWC.shape[1], strip_HWC.shape[0])
