"""Axis-parallel boxes in a frame, and how to draw one at random."""

import math
from typing import NamedTuple

import numpy as np


class Box(NamedTuple):
    """A box of whole pixels: rows `top .. top + height - 1`, columns `left .. left + width - 1`."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """The rows of the box, to index the H axis with."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """The columns of the box, to index the W axis with."""
        return slice(self.left, self.left + self.width)


def draw_box(
    height: int,
    width: int,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    rng: np.random.Generator,
    tries: int = 10,
) -> Box | None:
    """Draw a box inside a `height` x `width` frame; return None if none of `tries` shapes fits.

    The box's fraction of the frame's area is uniform in `area`. Its aspect ratio (width / height)
    is log-uniform in `aspect`, so that 3:4 is as likely as 4:3. Its position is uniform over all
    positions at which it fits inside the frame. Random crops (Szegedy et al. 2015, arXiv
    1409.4842, section 6) and erased boxes (Zhong et al. 2020, arXiv 1708.04896) use this draw.
    """
    for _ in range(tries):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        box_height = round(math.sqrt(pixels / ratio))
        box_width = round(math.sqrt(pixels * ratio))
        if 1 <= box_height <= height and 1 <= box_width <= width:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return Box(top, left, box_height, box_width)
    return None
