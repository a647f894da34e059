"""Write a video as mp4 with its predicted classes drawn into the pictures.

Shape suffixes: N frames, H height, W width (pixels), C colours (RGB); pictures are uint8.
"""

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import IO

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hiera_video.data.decoders import Decoding, VideoReader, open_video
from hiera_video.data.decoders._container import open_output
from hiera_video.inference.predictor import ClassScore
from hiera_video.inference.windows import Window
from hiera_video.utils import disk
from hiera_video.utils.errors import UserError
from hiera_video.utils.fonts import font_file, usual_font
from hiera_video.utils.text import printable
from hiera_video.visualize.pictures import enlarged

# Smaller pictures are enlarged to this width, so that names can be read.
_MIN_WIDTH = 480
_LINES_OF_PICTURE = 22  # lines of text that would fill the picture's height
_MIN_TEXT_PX, _MAX_TEXT_PX = 15, 48
_PAPER, _INK, _BAR, _BEST = (0, 0, 0, 185), (255, 255, 255), (90, 160, 235, 220), (255, 196, 60)
_CHUNK_BYTES = 128 << 20  # decoded frames in memory at a time


def write_overlay(
    path: str,
    out: str,
    windows: Sequence[Window],
    *,
    backend: str | Decoding,
    top_k: int,
    fallback_fps: float,
) -> None:
    """Write a video as mp4 without sound, with its `top_k` best classes drawn at each time.

    The classes are those of the window with the nearest centre. `fallback_fps` is the frame rate of
    a video that states none. `out` appears once it is complete.

    Raises:
        DecodeError: the video does not decode to its end.
        UserError: `out` is the video itself, or cannot be written.
    """
    if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
        raise UserError(f"--overlay must be another file than the video, got {out!r}.")
    with open_video(path, backend=backend) as reader:
        fps = reader.fps if reader.fps > 0 else fallback_fps
        try:
            disk.write_atomic(
                out, lambda file: _encode(file, _labelled(reader, windows, fps, top_k), fps)
            )
        except OSError as error:
            raise UserError(
                f"--overlay: {out!r} could not be written ({error.strerror or error})."
            ) from None


def draw_labels(picture_HWC: np.ndarray, rows: Sequence[ClassScore]) -> np.ndarray:
    """Draw classes into the picture's lower left corner, each with a bar for its score.

    Long names are truncated to the picture's width.
    """
    height, width, _ = picture_HWC.shape
    size = min(max(height // _LINES_OF_PICTURE, _MIN_TEXT_PX), _MAX_TEXT_PX)
    font, pad = _font(size, usual_font()), size // 2
    line = int(size * 1.7)
    share_width = int(font.getlength("100.0 %"))
    room = max(width - 6 * pad - share_width, 1)
    full_names = [printable(one.name) for one in rows]
    files = [font_file(name) for name in full_names]
    fonts = [_font(size, file) if file else font for file in files]
    names = [
        _cut(name if file else f"class {one.label}", own, room)
        for one, name, file, own in zip(rows, full_names, files, fonts, strict=True)
    ]
    lengths = [own.getlength(name) for name, own in zip(names, fonts, strict=True)]
    bar_width = max([*lengths, 8 * size])
    bar_width = int(min(bar_width, room))
    right, bottom = 3 * pad + bar_width + share_width + pad, 2 * pad + line * len(rows)
    top = height - bottom - pad
    layer = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(layer)
    draw.rounded_rectangle((pad, top, pad + right, height - pad), radius=pad, fill=_PAPER)
    for row, (one, name, own) in enumerate(zip(rows, names, fonts, strict=True)):
        y, x = top + pad + row * line, 2 * pad
        ink = _BEST if row == 0 else _INK
        draw.rectangle(
            (x, y + line - size // 4, x + bar_width * one.score, y + line - size // 8), fill=_BAR
        )
        draw.text((x, y + line / 2), name, font=own, fill=ink, anchor="lm")
        draw.text(
            (pad + right - pad, y + line / 2),
            f"{one.score:.1%}".replace("%", " %"),
            font=font,
            fill=ink,
            anchor="rm",
        )
    picture = Image.fromarray(np.ascontiguousarray(picture_HWC)).convert("RGBA")
    return np.asarray(Image.alpha_composite(picture, layer).convert("RGB"))


@cache
def _font(size: int, file: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


def _cut(name: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    if font.getlength(name) <= room:
        return name
    while name and font.getlength(name + "…") > room:
        name = name[:-1]
    return name.rstrip() + "…"


def _labelled(
    reader: VideoReader, windows: Sequence[Window], fps: float, top_k: int
) -> Iterator[np.ndarray]:
    """Yield the labelled pictures of all ticks, cropped to even height and width."""
    num_bytes = reader.frames_at([0]).nbytes
    per_chunk = max(_CHUNK_BYTES // num_bytes, 8)
    rows = [window.prediction.top(top_k) for window in windows]
    middles = np.array([window.middle_sec for window in windows])
    for start in range(0, reader.num_ticks, per_chunk):
        ticks = np.arange(start, min(start + per_chunk, reader.num_ticks))
        frames_NHWC = reader.frames_at(reader.ticks_to_frames(ticks))
        for tick, frame_HWC in zip(ticks, frames_NHWC, strict=True):
            large_HWC = enlarged(frame_HWC[None], at_least=_MIN_WIDTH)[0]
            nearest = int(np.abs(middles - tick / fps).argmin())
            picture_HWC = draw_labels(large_HWC, rows[nearest])
            yield picture_HWC[: len(picture_HWC) // 2 * 2, : picture_HWC.shape[1] // 2 * 2]


def _encode(file: IO[bytes], pictures: Iterator[np.ndarray], fps: float) -> None:
    with open_output(file, format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(30030))
        stream.options = {"preset": "veryfast", "crf": "20"}
        stream.pix_fmt = "yuv420p"
        for number, picture_HWC in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture_HWC.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
