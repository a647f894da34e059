"""A figure of the masking strategies on a synthetic clip.

Shape suffixes: B clips (1 here), U mask units; T frames, H height, W width (pixels), C colours
(RGB).
"""

import numpy as np
import torch

from hiera_video.data.synthetic.render import render_clip
from hiera_video.models import masking
from hiera_video.visualize.pictures import grey_hidden, labelled_grid, save_png

GRID = (8, 7, 7)  # of clips of 16 frames of 224 px
SIZE, SHOWN = 224, 2  # pixels, and of how many one is shown
UNIT_PX = SIZE // SHOWN // GRID[1]


def draw_strategies(path: str, *, ratio: float, seed: int) -> None:
    """Write a PNG: the clip, then a row for each strategy; one column per time step."""
    rng = np.random.default_rng(seed)
    frames_THWC = render_clip(rng, "moves_right", size=SIZE, num_frames=16, bright=True)
    shown_THWC = frames_THWC[::2, ::SHOWN, ::SHOWN]
    rows = {"the clip": shown_THWC}
    for number, name in enumerate(("tube", "random", "frame")):
        visible_BU = getattr(masking, name)(
            GRID, num_clips=1, ratio=ratio, generator=torch.Generator().manual_seed(seed + number)
        )
        masked_THWC = grey_hidden(
            shown_THWC, visible_BU[0].unflatten(0, GRID).numpy(), strength=0.92
        )
        label = f"{name}\n{int(visible_BU.sum())} of {visible_BU.numel()}\nvisible"
        rows[label] = with_lines(masked_THWC)
    columns = [f"frames {2 * step}-{2 * step + 1}" for step in range(GRID[0])]
    save_png(path, labelled_grid(rows, columns))


def with_lines(frames_THWC: np.ndarray) -> np.ndarray:
    """Return the frames with thin light lines where mask units meet."""
    lined_THWC = frames_THWC.copy()
    lined_THWC[:, UNIT_PX::UNIT_PX] = 210
    lined_THWC[:, :, UNIT_PX::UNIT_PX] = 210
    return lined_THWC
