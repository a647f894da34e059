"""Encode pictures as `data:` URLs, so that the page needs no other file.

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

# Longer side. Shown at most this large, or half as large on high-resolution screens.
THUMBNAIL_PX = 192
_JPEG_QUALITY = 80
# The confusion matrix has one colour, more opaque for a larger share: it suits every background.
_ACCENT = (46, 140, 200)


def jpeg_address(picture_HWC: np.ndarray, *, longest_px: int = THUMBNAIL_PX) -> str:
    """Encode a uint8 RGB picture as JPEG, shrunk so that no side is longer than `longest_px`."""
    image = Image.fromarray(picture_HWC)
    image.thumbnail((longest_px, longest_px))
    return _address(image, "jpeg", quality=_JPEG_QUALITY)


def png_address(picture_HWC: np.ndarray) -> str:
    """Encode a uint8 RGB picture as PNG, pixel for pixel."""
    return _address(Image.fromarray(picture_HWC), "png", optimize=True)


def matrix_address(shares_KK: np.ndarray, accent: tuple[int, int, int] = _ACCENT) -> str:
    """Encode shares in [0, 1] as a PNG of K x K pixels in one colour, with alpha from `opacity`."""
    levels_KK = np.rint(opacity(shares_KK) * 255).astype(np.uint8)
    image = Image.fromarray(levels_KK, mode="P")
    image.putpalette(list(accent) * 256)
    return _address(image, "png", optimize=True, transparency=bytes(range(256)))


def opacity(shares: np.ndarray) -> np.ndarray:
    """Return the opacity of cells: the square root, so that one mistake in a hundred is visible."""
    return np.sqrt(shares)


def middle_frame(path: str, backend: str | Decoding) -> np.ndarray:
    """Decode the middle frame of a video, `frame_HWC`.

    Raises:
        UserError: it does not decode, no longer exists, or is at a URL: reports download nothing.
    """
    if io.is_url(file_behind(path)):
        raise UserError("The video is at a URL, and a report downloads nothing.")
    if not io.is_file(file_behind(path)):
        raise UserError("The video no longer exists.")
    with open_video(path, backend) as reader:
        middle = reader.ticks_to_frames(np.array([(reader.num_ticks - 1) // 2]))
        return reader.frames_at(middle)[0]


def short_path(path: str) -> str:
    """Return the last two parts of a video's path: file names alone are often not unique."""
    return str(PurePath(*PurePath(path).parts[-2:]))


def _address(image: Image.Image, form: str, **options: object) -> str:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
