"""Arrange frames in labelled grids, and write PNG and mp4 files.

Shape suffixes: R rows, K columns, T frames, H height, W width (pixels), C colour (RGB); THW after
`visible` are the mask units in time and space. Frames are uint8.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hiera_video.data.synthetic.videos import encode_h264
from hiera_video.utils import disk
from hiera_video.utils.errors import UserError

GREY = (170, 170, 170)  # hidden units; not black or white, which videos often contain
_GAP = 4  # pixels between pictures
_TEXT_PX = 15  # height of a letter
_CHARACTER_PX = 0.62 * _TEXT_PX  # upper estimate of its width


def grey_hidden(
    frames_THWC: np.ndarray, visible_THW: np.ndarray, *, strength: float = 1.0
) -> np.ndarray:
    """Return the frames with hidden mask units in grey.

    `visible_THW` is bool over the unit grid, which divides the frames' T, H and W. `strength` is
    the share of grey in a hidden pixel; the rest is the frame.
    """
    hidden = ~visible_THW
    for axis, size in enumerate(frames_THWC.shape[:3]):
        hidden = hidden.repeat(size // hidden.shape[axis], axis)
    greyed_THWC = (1 - strength) * frames_THWC + strength * np.array(GREY)
    return np.where(hidden[..., None], greyed_THWC.round().astype(np.uint8), frames_THWC)


def enlarged(frames_THWC: np.ndarray, *, at_least: int) -> np.ndarray:
    """Repeat each pixel so often that the frames are `at_least` pixels wide."""
    factor = -(-at_least // frames_THWC.shape[2])
    return frames_THWC.repeat(factor, 1).repeat(factor, 2)


def labelled_grid(
    rows: Mapping[str, np.ndarray], columns: Sequence[str], *, title: str = "", caption: str = ""
) -> np.ndarray:
    """Put frames in a grid on white, pixel for pixel, with text around it; return `picture_HWC`.

    `rows` are frames_THWC by the label at their left, all of one size. `columns` are the labels
    above, one per frame. A label may have several lines. Height and width of the picture are even.
    """
    frames_RKHWC = np.stack(list(rows.values()))
    num_rows, num_columns, height, width, _ = frames_RKHWC.shape
    assert num_columns == len(columns), columns
    left = int(max(len(line) for label in rows for line in label.split("\n")) * _CHARACTER_PX) + 16
    top = (2 * _TEXT_PX + 6 if title else 0) + (_TEXT_PX + 12 if any(columns) else _GAP)
    bottom = 2 * _TEXT_PX if caption else _GAP
    longest = max(len(title), len(caption))
    total_width = max(left + num_columns * (width + _GAP), int(longest * _CHARACTER_PX) + 16)
    total_height = top + num_rows * (height + _GAP) + bottom
    canvas = _Canvas(total_height + total_height % 2, total_width + total_width % 2)

    if title:
        canvas.write(title, x=8, y=_TEXT_PX, bold=True)
    for column, label in enumerate(columns):
        middle = left + column * (width + _GAP) + width / 2
        canvas.write(label, x=middle, y=top - _TEXT_PX / 2 - 4, align="center")
    for row, label in enumerate(rows):
        canvas.write(label, x=8, y=top + row * (height + _GAP) + height / 2)
    if caption:
        canvas.write(caption, x=8, y=total_height - _TEXT_PX)
    picture_HWC = canvas.pixels()
    for row, column in np.ndindex(num_rows, num_columns):
        y, x = top + row * (height + _GAP), left + column * (width + _GAP)
        picture_HWC[y : y + height, x : x + width] = frames_RKHWC[row, column]
    return picture_HWC


def side_by_side(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Put clips side by side, each under its label; return frames_THWC of even height and width."""
    frames_PTHWC = np.stack(list(parts.values()))
    return np.stack(
        [labelled_grid({"": frames_PTHWC[:, t]}, list(parts)) for t in range(frames_PTHWC.shape[1])]
    )


def save_png(path: str, picture_HWC: np.ndarray) -> None:
    """Write a picture as PNG. Raises a UserError if the file cannot be written."""
    from matplotlib.image import imsave

    def write(file: Any) -> None:
        # Omit matplotlib's version, so that equal pictures give equal files.
        imsave(file, picture_HWC, format="png", metadata={"Software": ""})

    _writing(path, lambda: disk.write_atomic(path, write))


def save_mp4(path: str, frames_THWC: np.ndarray, *, fps: int) -> None:
    """Write frames of even height and width as mp4 (H.264). Raises a UserError as `save_png`."""
    _writing(path, lambda: encode_h264(path, frames_THWC, fps=fps))


def _writing(path: str, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise UserError(f"{path!r} could not be written ({error.strerror or error}).") from None


class _Canvas:
    """A white canvas of height x width pixels to write text on; y counts from the top."""

    def __init__(self, height: int, width: int) -> None:
        # The object interface draws without a display and without matplotlib's global state.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        dpi = 100.0
        self._height = height
        # Half a pixel more than needed, because matplotlib rounds down.
        size_inch = ((width + 0.5) / dpi, (height + 0.5) / dpi)
        self._figure = Figure(figsize=size_inch, dpi=dpi, facecolor="white")
        self._canvas = FigureCanvasAgg(self._figure)
        self._points = 0.75 * _TEXT_PX * 72 / dpi * 1.3

    def write(
        self, text: str, *, x: float, y: float, align: str = "left", bold: bool = False
    ) -> None:
        """Write text that is vertically centred at `y`."""
        self._figure.text(
            x,
            self._height - y,
            text,
            transform=None,
            horizontalalignment=align,
            verticalalignment="center",
            fontsize=self._points,
            fontweight="bold" if bold else "normal",
            parse_math=False,  # a path may hold dollar signs
        )

    def pixels(self) -> np.ndarray:
        """Return the canvas as uint8 [H, W, 3]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter missing in the font is drawn as a box
            self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
