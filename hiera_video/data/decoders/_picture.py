"""Turn pictures upright by their display matrix, and resize them to square pixels.

Phones write a display matrix instead of rotating pixels. ISO 14496-12, section 6.2.2: the matrix
maps (x, y) to (ax + cy, bx + dy), with y pointing down. Only rotations by right angles, with or
without mirroring, are applied. For those, a and d are 0, or b and c are 0.

A file may state the width of a pixel over its height (sample aspect ratio, SAR). A player enlarges
the picture's width by this ratio, or its height if pixels are higher than wide, to lose no detail.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import Interpolation, VideoReformatter

from hiera_video.data.decoders._packets import decode


class DisplayMatrix(NamedTuple):
    """The four numbers of a display matrix that rotate and mirror; only their signs matter."""

    a: int
    b: int
    c: int
    d: int

    @property
    def is_right_angle(self) -> bool:
        """Whether it rotates by a multiple of 90 degrees, mirrored or not; others are ignored."""
        return self.is_quarter_turn or (self.b == self.c == 0 and self.a != 0 != self.d)

    @property
    def is_quarter_turn(self) -> bool:
        """Whether it swaps width and height."""
        return self.a == self.d == 0 and self.b != 0 != self.c

    @property
    def is_mirrored(self) -> bool:
        """Whether it mirrors the picture, independent of the rotation."""
        return self.a * self.d - self.b * self.c < 0


def display_matrix(frame: av.VideoFrame) -> DisplayMatrix | None:
    """Return the display matrix of a decoded frame or None; it may change within a video."""
    # `frame.side_data` would create a reference cycle of the frame and its side data. Every decoded
    # picture would then stay in memory until the garbage collector runs.
    try:
        data = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # no stub
    except ValueError:  # side data unknown to PyAV (Exif): only the rotation is available
        x, y = (round(f(math.radians(frame.rotation))) for f in (math.cos, math.sin))
        return DisplayMatrix(x, -y, y, x)
    if data is None:
        return None
    a, b, _u, c, d, *_ = np.frombuffer(bytes(data), dtype=np.int32).tolist()
    return DisplayMatrix(a, b, c, d)


def first_matrix(
    container: av.container.InputContainer, stream: av.VideoStream
) -> DisplayMatrix | None:
    """Return the display matrix of the first frame; None without matrix, decoder or frame."""
    if stream.codec_context is None:
        return None
    try:
        container.seek(0, stream=stream)
        return display_matrix(next(decode(container, stream)))
    except (av.FFmpegError, StopIteration):
        return None  # it does not decode, which the caller will notice


def upright(picture_HWC: np.ndarray, matrix: DisplayMatrix | None) -> np.ndarray:
    """Rotate and mirror a picture by `matrix`; return a view (H and W may be swapped)."""
    if matrix is None or not matrix.is_right_angle:
        return picture_HWC
    a, b, c, d = matrix
    x_scale, y_scale = a, d
    if a == d == 0:
        picture_HWC, x_scale, y_scale = picture_HWC.transpose(1, 0, 2), c, b
    return picture_HWC[:: -1 if y_scale < 0 else 1, :: -1 if x_scale < 0 else 1]


# Ratios beyond this are wrong; the widest pixels in use are 2:1.
_MAX_RATIO = 5
# A ratio this close to 1 comes from rounding the sides of a scaled video to even numbers.
_ROUNDING = Fraction(1, 100)


def pixel_ratio(stream: av.VideoStream) -> Fraction:
    """Return the width of a pixel over its height; 1 if it is missing, wrong or close to 1."""
    ratio = Fraction(stream.sample_aspect_ratio or 0)
    if not Fraction(1, _MAX_RATIO) <= ratio <= _MAX_RATIO or abs(ratio - 1) < _ROUNDING:
        return Fraction(1)
    return ratio


def square(frames_THWC: np.ndarray, ratio: Fraction, matrix: DisplayMatrix | None) -> np.ndarray:
    """Resize uint8 RGB frames [T,H,W,3] to square pixels; return the same array if they have them.

    The frames are already rotated by `matrix`; `ratio` is the pixel ratio before the rotation.
    """
    if matrix is not None and matrix.is_quarter_turn:
        ratio = 1 / ratio
    num_frames, height, width, _ = frames_THWC.shape
    shown = round(width * max(ratio, 1)), round(height * max(1 / ratio, 1))
    if shown == (width, height):
        return frames_THWC
    reformatter = VideoReformatter()
    shown_THWC = np.empty((num_frames, shown[1], shown[0], 3), np.uint8)
    for frame_HWC, shown_HWC in zip(frames_THWC, shown_THWC, strict=True):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
        shown_HWC[:] = reformatter.reformat(
            frame, *shown, interpolation=Interpolation.BICUBIC, threads=1
        ).to_ndarray()
    return shown_THWC
