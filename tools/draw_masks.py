"""Draw the masking strategies as a figure: python tools/draw_masks.py docs/masking.png"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from hiera_video.data.synthetic.render import render_clip
from hiera_video.models import masking
from hiera_video.visualize.pictures import grey_hidden, labelled_grid, save_png

GRID = (8, 7, 7)  # of clips of 16 frames of 224 px
SIZE, SHOWN = 224, 2  # pixels, and of how many one is shown
UNIT_PX = SIZE // SHOWN // GRID[1]


def draw_figure(*, ratio: float, seed: int) -> np.ndarray:
    """Return a picture with the clip, then a row for each strategy; one column per time step."""
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
    return labelled_grid(rows, columns)


def with_lines(frames_THWC: np.ndarray) -> np.ndarray:
    """Return the frames with thin light lines where mask units meet."""
    lined_THWC = frames_THWC.copy()
    lined_THWC[:, UNIT_PX::UNIT_PX] = 210
    lined_THWC[:, :, UNIT_PX::UNIT_PX] = 210
    return lined_THWC


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the figure and say where it is."""
    parser = argparse.ArgumentParser(description="Draw the masking strategies.")
    parser.add_argument("output", metavar="PNG", help="the file to write")
    parser.add_argument("--ratio", type=float, default=0.9, help="share hidden (%(default)s)")
    parser.add_argument("--seed", type=int, default=9, help="of masks and clip (%(default)s)")
    arguments = parser.parse_args(argv)
    save_png(arguments.output, draw_figure(ratio=arguments.ratio, seed=arguments.seed))
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    cli.run(main)
