"""The shape of pixels: pictures that are stored narrower or wider than they are shown.

A file may state the width of a pixel over its height (sample aspect ratio, SAR). A player enlarges
the width of the picture by it, or its height where pixels are high, so that nothing is lost.
`SquareReader` does the same behind every decoder, so that all give the same pixels.
"""

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from hiera_video.data.decoders._orientation import DisplayMatrix
from hiera_video.data.decoders._reader import BaseReader

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


class SquareReader(BaseReader):
    """An opened video whose frames are shown with square pixels; see VideoReader."""

    def __init__(self, reader: BaseReader) -> None:
        self._reader = reader
        self.path = reader.path
        self.file = reader.file
        self.num_frames = reader.num_frames
        self.timeline = reader.timeline

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at `indices` as uint8 RGB [T,H,W,3]; see VideoReader.frames_at."""
        frames_THWC = self._reader.frames_at(indices)
        return square(frames_THWC, self._reader.pixel_ratio, self._reader.matrix)

    def close(self) -> None:
        """Close the file; harmless the second time."""
        self._reader.close()
