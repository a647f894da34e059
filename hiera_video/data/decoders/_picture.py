"""The picture as it is shown: the display matrix turns it, and the shape of pixels widens it.

Phones write a display matrix instead of turning pixels. ISO 14496-12, section 6.2.2: the matrix
sends (x, y) to (ax + cy, bx + dy), y pointing down. Only right angles are followed, turned or
mirrored; for those a and d are 0, or b and c.

A file may state the width of a pixel over its height (sample aspect ratio, SAR). A player enlarges
the width of the picture by it, or the height if pixels are high, so that nothing is lost.
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
    """The four numbers that turn and mirror; only their signs matter."""

    a: int
    b: int
    c: int
    d: int

    @property
    def is_right_angle(self) -> bool:
        """Say whether it turns by whole quarters, mirrored or not; others are not followed."""
        return self.is_quarter_turn or (self.b == self.c == 0 and self.a != 0 != self.d)

    @property
    def is_quarter_turn(self) -> bool:
        """Say whether it exchanges width and height."""
        return self.a == self.d == 0 and self.b != 0 != self.c

    @property
    def is_mirrored(self) -> bool:
        """Say whether the picture is mirrored, whatever its turn."""
        return self.a * self.d - self.b * self.c < 0


def display_matrix(frame: av.VideoFrame) -> DisplayMatrix | None:
    """Return the matrix of a decoded frame, or None if it has none; it may change on the way."""
    # `frame.side_data` would do, but the frame keeps that container and the container the frame: a
    # cycle that holds every decoded picture until the garbage collector runs.
    try:
        data = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # no stub
    except ValueError:  # data of a kind that PyAV has no name for (Exif): it tells the turn alone
        x, y = (round(f(math.radians(frame.rotation))) for f in (math.cos, math.sin))
        return DisplayMatrix(x, -y, y, x)
    if data is None:
        return None
    a, b, _u, c, d, *_ = np.frombuffer(bytes(data), dtype=np.int32).tolist()
    return DisplayMatrix(a, b, c, d)


def first_matrix(
    container: av.container.InputContainer, stream: av.VideoStream
) -> DisplayMatrix | None:
    """Return the matrix of the first frame that decodes, or None without one or a decoder."""
    if stream.codec_context is None:
        return None
    try:
        container.seek(0, stream=stream)
        return display_matrix(next(decode(container, stream)))
    except (av.FFmpegError, StopIteration):
        return None  # it does not decode: who asked will find out


def upright(picture_HWC: np.ndarray, matrix: DisplayMatrix | None) -> np.ndarray:
    """Return the picture as it is to be shown (a view, H and W exchanged by a quarter turn)."""
    if matrix is None or not matrix.is_right_angle:
        return picture_HWC
    a, b, c, d = matrix
    x_scale, y_scale = a, d
    if a == d == 0:
        picture_HWC, x_scale, y_scale = picture_HWC.transpose(1, 0, 2), c, b
    return picture_HWC[:: -1 if y_scale < 0 else 1, :: -1 if x_scale < 0 else 1]


# No video has wider or narrower pixels than these; the widest in use are 2:1.
_MAX_RATIO = 5
# A ratio this near to 1 comes from rounding the sides of a scaled video to even numbers.
_ROUNDING = Fraction(1, 100)


def pixel_ratio(stream: av.VideoStream) -> Fraction:
    """Return the stored width of a pixel over its height; 1 if none, a false one or a rounded 1."""
    ratio = Fraction(stream.sample_aspect_ratio or 0)
    if not Fraction(1, _MAX_RATIO) <= ratio <= _MAX_RATIO or abs(ratio - 1) < _ROUNDING:
        return Fraction(1)
    return ratio


def square(frames_THWC: np.ndarray, ratio: Fraction, matrix: DisplayMatrix | None) -> np.ndarray:
    """Return uint8 RGB frames with square pixels, [T,H,W,3]; the same array if nothing changes.

    The frames have been turned by `matrix`; `ratio` is that of a pixel before.
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
