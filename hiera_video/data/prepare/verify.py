"""Verify a written video: decode it completely and compare it with what was encoded.

What was encoded may itself be wrong. The result is therefore also compared with the source as
training reads it: frame rate, duration, and a few pictures found by seeking.
"""

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation

from hiera_video.data.decoders._packets import open_stream
from hiera_video.data.decoders._reader import fetch_file
from hiera_video.data.decoders._timeline import Timeline
from hiera_video.data.decoders.pyav import PyavReader, open_video
from hiera_video.data.prepare.encode import STEP_FRAMES, Begin, Encoded, Phase

_BRIGHTNESS_TOLERANCE = 16  # of 255; compression changes a picture's mean by less than one
_PICTURE_TOLERANCE = 16  # of 255, mean difference of thumbnails
_THUMBNAIL_PX = 16
_RATE_TOLERANCE = 0.02


class VerifyError(Exception):
    """A written video differs from what was encoded; the text says how."""


def verify(path: str, encoded: Encoded, begin: Begin) -> None:
    """Decode all of `path`; raise VerifyError unless each frame matches `encoded`.

    Compares the number of frames, size, pixel ratio, marks of damage, time stamps (to half a tick
    of the file) and mean brightness. The training decoder must find the same number of frames,
    and the rate and duration that it finds in the source. Calls `begin(phase, frame)` before every
    STEP_FRAMES frames. Raises DecodeError if the file is not a video.
    """
    container, stream = open_stream(path, path)
    number = 0
    with container:
        half_a_tick = Fraction(stream.time_base or 0) / 2
        try:
            for number, frame in enumerate(container.decode(stream), start=1):
                if number % STEP_FRAMES == 1:
                    begin(Phase.VERIFYING, number - 1)
                if number <= len(encoded.times_N):
                    _verify_frame(frame, number - 1, encoded, half_a_tick)
        except av.FFmpegError as error:
            raise VerifyError(f"it stops to decode after {number} frames ({error})") from None
    with _open(path) as reader:
        found = {number, reader.num_frames}
        timeline, written = reader.timeline, reader.pixel_ratio
    if found != {len(encoded.times_N)}:
        raise VerifyError(
            f"{len(encoded.times_N)} frames were encoded, {number} decode, and the training "
            f"decoder finds {reader.num_frames}"
        )
    if written != encoded.pixel_ratio:
        raise VerifyError(f"its pixels have the ratio {written}, not {encoded.pixel_ratio}")
    _verify_timeline(timeline, encoded.timeline)


def _open(path: str) -> PyavReader:
    return open_video(path, file=fetch_file(path))


def compare_pictures(path: str, source: str, encoded: Encoded, begin: Begin) -> None:
    """Raise VerifyError unless pictures of `path` match those that a seek finds in `source`.

    Compares thumbnails of the first, the middle and the last frame. Skips a source whose frames
    can be found only by decoding them all, because `encode` has already done that.
    """
    if not encoded.is_seekable:
        return
    last = len(encoded.times_N) - 1
    with _open(source) as before, _open(path) as after:
        for number in sorted({0, last // 2, last}):
            begin(Phase.VERIFYING, number)
            wanted, found = (
                _thumbnail(reader.frames_at([number])[0]) for reader in (before, after)
            )
            distance = float(np.abs(wanted - found).mean())
            if distance > _PICTURE_TOLERANCE:
                raise VerifyError(
                    f"frame {number} is another picture than in the source: they differ by "
                    f"{distance:.0f} of 255 levels"
                )


def _thumbnail(picture_HWC: np.ndarray) -> np.ndarray:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")
    small = frame.reformat(_THUMBNAIL_PX, _THUMBNAIL_PX, interpolation=Interpolation.AREA)
    return small.to_ndarray().astype(np.float32)


def _verify_timeline(found: Timeline, wanted: Timeline) -> None:
    """Raise unless rate and duration match the source's (a rate of 0.0 there means unknown)."""
    if not wanted.fps:
        return
    if abs(found.fps - wanted.fps) > _RATE_TOLERANCE * wanted.fps:
        raise VerifyError(
            f"its rate is {found.fps:.6g} frames per second, and its source's {wanted.fps:.6g}"
        )
    if abs(found.num_ticks - wanted.num_ticks) > 1 + _RATE_TOLERANCE * wanted.num_ticks:
        raise VerifyError(
            f"it lasts {found.num_ticks / found.fps:.6g} s, and its source "
            f"{wanted.num_ticks / wanted.fps:.6g} s"
        )


def _verify_frame(
    frame: av.VideoFrame, number: int, encoded: Encoded, half_a_tick: Fraction
) -> None:
    if (frame.width, frame.height) != (encoded.width, encoded.height):
        raise VerifyError(
            f"frame {number} is {frame.width}x{frame.height}, not {encoded.width}x{encoded.height}"
        )
    if frame.is_corrupt:
        raise VerifyError(f"frame {number} is damaged")
    time = frame.pts * frame.time_base if frame.pts is not None else None
    if time is None or abs(time - encoded.times_N[number]) > half_a_tick:
        raise VerifyError(f"frame {number} has time {time}, not {encoded.times_N[number]}")
    brightness = float(frame.to_ndarray()[: frame.height].mean())
    if abs(brightness - encoded.brightness_N[number]) > _BRIGHTNESS_TOLERANCE:
        raise VerifyError(
            f"frame {number} has brightness {brightness:.0f}, not "
            f"{encoded.brightness_N[number]:.0f}"
        )
