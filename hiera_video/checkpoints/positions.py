"""Resize position embeddings of a checkpoint for another resolution or number of frames.

Shape suffixes: N positions, D channels, T time, H height, W width. A grid is always (T, H, W); an
embedding without time, or without space, has 1 in that place.
"""

from collections.abc import Iterable
from math import isqrt, log, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Grid = tuple[int, int, int]

_RELATIVE = ".relative_positions.tables."
SPATIAL, TEMPORAL = "pos_embed_spatial", "pos_embed_temporal"
WHOLE, DECODER = "pos_embed", "decoder_pos_embed"


def resize_positions(
    state: dict[str, torch.Tensor], model: nn.Module
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Fit a state dict's position embeddings to `model`; return it and the names interpolated.

    Interpolation is bicubic in space and linear in time. Only the shapes of the model are used, so
    it may be on the meta device.

    The file's grid is assumed to have the model's aspect ratio. If the number of positions rules
    this out, the grid is assumed to be square, as the published ones are. The file's number of
    frames is the length of its `pos_embed_temporal`. If it has none, the possible grid nearest to
    the model's is used. Embeddings that already fit are returned unchanged. So are embeddings with
    no possible grid or other channels; the caller rejects them.

    Relative positions, `[distances, D]`, are interpolated linearly. A classifier's last stage has
    fewer than its autoencoder's, which pools once less.
    """
    own_state = model.state_dict()
    grids = {name: grid for name, grid in _grids(model).items() if name in own_state}
    resized = {}
    for name, here in grids.items():
        theirs, own = state.get(name), own_state[name]
        if theirs is None or not theirs.dim() == own.dim() == 3:
            continue
        if theirs.shape[::2] != own.shape[::2]:  # differs in more than the number of positions
            continue
        num_positions = theirs.shape[1]
        frames = _frames_of(name, state, grids, is_video=len(getattr(model, "grid", ())) == 3)
        there = _nearest_grid(num_positions, here, frames or range(1, num_positions + 1))
        if there is not None and there != here:
            resized[name] = _interpolate(theirs, there, here)
    resized |= _resized_relative(state, own_state)
    return {**state, **resized}, tuple(resized)


def _resized_relative(
    state: dict[str, torch.Tensor], own_state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the relative positions of `state` that have another number of distances, resized."""
    resized = {}
    for name in filter(lambda name: _RELATIVE in name, own_state):
        theirs, own = state.get(name), own_state[name]
        if theirs is None or theirs.dim() != 2 or theirs.shape[1] != own.shape[1]:
            continue
        if 0 < len(theirs) != len(own):
            resized[name] = _interpolate(theirs[None], (len(theirs), 1, 1), (len(own), 1, 1))[0]
    return resized


def _grids(model: nn.Module) -> dict[str, Grid]:
    if not hasattr(model, "grid"):  # a model of another family
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


def _frames_of(
    name: str, state: dict[str, torch.Tensor], grids: dict[str, Grid], *, is_video: bool
) -> list[int]:
    """Return the file's number of frames in the embedding `name`, or [] if it is unknown."""
    if name == SPATIAL or not is_video:
        return [1]
    if TEMPORAL not in grids or TEMPORAL not in state:
        return []
    frames = state[TEMPORAL].shape[1]
    if name != DECODER:
        return [frames]
    # Pooling divides the decoder's frames by the same factor in the file and in the model.
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
    # Compare the total change of size on a log scale, then the largest change in one dimension.
    # If the totals are equal, twice the resolution is likelier than four times the frames.
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
