"""Pictures as `data:` addresses, so that the page needs no other file.

Shape suffixes: T frames, H height, W width (pixels), C colour (RGB), K classes.
"""

import base64
from io import BytesIO
from pathlib import PurePath

import numpy as np
from PIL import Image

from hiera_video.data.decoders import Decoding, open_video
from hiera_video.data.shards.members import file_behind
from hiera_video.utils import io
from hiera_video.utils.errors import UserError

THUMBNAIL_PX = 192  # of the longer side; shown at most as large, or half as large on fine screens
_JPEG_QUALITY = 80
# The confusion matrix is one colour, the more opaque the larger a share: it suits any ground.
_ACCENT = (46, 140, 200)


def jpeg_address(picture_HWC: np.ndarray, *, longest_px: int = THUMBNAIL_PX) -> str:
    """Return a uint8 RGB picture as JPEG, made smaller where a side is longer than `longest_px`."""
    image = Image.fromarray(picture_HWC)
    image.thumbnail((longest_px, longest_px))
    return _address(image, "jpeg", quality=_JPEG_QUALITY)


def png_address(picture_HWC: np.ndarray) -> str:
    """Return a uint8 RGB picture as PNG, pixel for pixel."""
    return _address(Image.fromarray(picture_HWC), "png", optimize=True)


def matrix_address(shares_KK: np.ndarray, accent: tuple[int, int, int] = _ACCENT) -> str:
    """Return shares in [0, 1] as a PNG of K x K pixels: one colour, as opaque as `opacity` says."""
    levels_KK = np.rint(opacity(shares_KK) * 255).astype(np.uint8)
    image = Image.fromarray(levels_KK, mode="P")
    image.putpalette(list(accent) * 256)
    return _address(image, "png", optimize=True, transparency=bytes(range(256)))


def opacity(shares: np.ndarray) -> np.ndarray:
    """Return how opaque a cell is: the root, so that one mistake of a hundred is still seen."""
    return np.sqrt(shares)


def middle_frame(path: str, backend: str | Decoding) -> np.ndarray:
    """Decode the middle frame of a video, `frame_HWC`.

    Raises:
        UserError: it does not decode, is gone, or is behind a URL: a report fetches nothing.
    """
    if io.is_url(file_behind(path)):
        raise UserError("The video is behind a URL, and a report fetches nothing.")
    if not io.is_file(file_behind(path)):
        raise UserError("The video is not there any more.")
    with open_video(path, backend) as reader:
        middle = reader.ticks_to_frames(np.array([(reader.num_ticks - 1) // 2]))
        return reader.frames_at(middle)[0]


def short_path(path: str) -> str:
    """Return the last two parts of a video's path: file names alone are often the same."""
    return str(PurePath(*PurePath(path).parts[-2:]))


def _address(image: Image.Image, form: str, **options: object) -> str:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
