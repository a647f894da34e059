"""Position embeddings of a checkpoint, for a model of another resolution or number of frames.

Shape suffixes: N positions, D channels, T time, H height, W width. A grid is (T, H, W) throughout:
what has no time, or no space, has 1 there.
"""

from collections.abc import Iterable
from math import isqrt, log, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Grid = tuple[int, int, int]

SPATIAL, TEMPORAL = "pos_embed_spatial", "pos_embed_temporal"
WHOLE, DECODER = "pos_embed", "decoder_pos_embed"


def resize_positions(
    state: dict[str, torch.Tensor], model: nn.Module
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Fit a state dict's position embeddings to `model`; return it and the names interpolated.

    Bicubic in space, linear in time. Of the model only shapes are used, so it may be on the meta
    device. The file's grid is taken to have the model's aspect ratio, or to be square, as the
    published ones are, where it cannot have that. Its number of frames is the length of its
    `pos_embed_temporal`; without one, that of the grid nearest to the model's among those that the
    number of positions allows. What fits already comes back as it is; so does what is no such grid
    or has other channels, for the caller to refuse.
    """
    own_state = model.state_dict()
    grids = {name: grid for name, grid in _grids(model).items() if name in own_state}
    resized = {}
    for name, here in grids.items():
        if name not in state or not _same_but_for_positions(state[name], own_state[name]):
            continue
        num_positions = state[name].shape[1]
        frames = _frames_of(name, state, grids, is_video=len(getattr(model, "grid", ())) == 3)
        there = _nearest_grid(num_positions, here, frames or range(1, num_positions + 1))
        if there is not None and there != here:
            resized[name] = _interpolate(state[name], there, here)
    return {**state, **resized}, tuple(resized)


def _grids(model: nn.Module) -> dict[str, Grid]:
    if not hasattr(model, "grid"):  # of another family
        return {}
    time, height, width = _three(model.grid)
    return {
        SPATIAL: (1, height, width),
        TEMPORAL: (time, 1, 1),
        WHOLE: (time, height, width),
        DECODER: _three(getattr(model, "decoder_grid", model.grid)),
    }


def _three(grid: Any) -> Grid:
    height, width = grid[-2:]
    return (grid[0] if len(grid) == 3 else 1), height, width


def _same_but_for_positions(theirs: torch.Tensor, own: torch.Tensor) -> bool:
    return theirs.dim() == own.dim() == 3 and theirs.shape[::2] == own.shape[::2]


def _frames_of(
    name: str, state: dict[str, torch.Tensor], grids: dict[str, Grid], *, is_video: bool
) -> list[int]:
    """Return the file's number of frames in the embedding `name`, or [] where it does not say."""
    if name == SPATIAL or not is_video:
        return [1]
    if TEMPORAL not in grids or TEMPORAL not in state:
        return []
    frames = state[TEMPORAL].shape[1]
    if name != DECODER:
        return [frames]
    # The decoder's time is the encoder's over what the poolings merge, here as there.
    return [frames * grids[DECODER][0] // grids[TEMPORAL][0]]


def _nearest_grid(num_positions: int, here: Grid, frames: Iterable[int]) -> Grid | None:
    times = [time for time in frames if time and num_positions % time == 0]
    for height, width in (here[1:], (1, 1)):  # the model's aspect ratio, or a square
        grids = [
            (time, *space)
            for time in times
            if (space := _space(num_positions // time, height, width))
        ]
        if grids:
            return min(grids, key=lambda grid: _distance(grid, here))
    return None


def _space(places: int, own_height: int, own_width: int) -> tuple[int, int] | None:
    height = isqrt(places * own_height // own_width)
    width = height * own_width // own_height
    fits = height * own_width == width * own_height and height * width == places > 0
    return (height, width) if fits else None


def _distance(there: Grid, here: Grid) -> tuple[float, float]:
    # How often it was doubled or halved, in all; then in one dimension: of two changes that come
    # to the same number, twice the resolution is likelier than four times the frames.
    changes = [abs(log(t / h)) for t, h in zip(there, here, strict=True)]
    return round(sum(changes), 6), round(max(changes), 6)


def _interpolate(positions_1ND: torch.Tensor, there: Grid, here: Grid) -> torch.Tensor:
    grid_THWD = positions_1ND.double().reshape(*there, -1)
    if there[1:] != here[1:]:
        grid_TDHW = grid_THWD.permute(0, 3, 1, 2)
        grid_TDHW = F.interpolate(grid_TDHW, here[1:], mode="bicubic", align_corners=False)
        grid_THWD = grid_TDHW.permute(0, 2, 3, 1)
    if there[0] != here[0]:
        lines_1NT = grid_THWD.reshape(1, there[0], -1).transpose(1, 2)
        lines_1NT = F.interpolate(lines_1NT, here[0], mode="linear", align_corners=False)
        grid_THWD = lines_1NT.transpose(1, 2)
    return grid_THWD.reshape(1, prod(here), -1).to(positions_1ND.dtype)
