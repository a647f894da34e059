"""The proof that a video was written as meant: a full decode, held against what was encoded."""

from fractions import Fraction

import av

from hiera_video.data.decoders._packets import open_stream
from hiera_video.data.decoders.pyav import open_video
from hiera_video.data.prepare.encode import STEP_FRAMES, Begin, Encoded, Phase

_BRIGHTNESS_TOLERANCE = 16  # of 255; compression moves a picture's mean by less than one


class VerifyError(Exception):
    """A written video that is not what was encoded; in words."""


def verify(path: str, encoded: Encoded, begin: Begin) -> None:
    """Decode all of `path`, and raise VerifyError unless it is `encoded`, frame by frame.

    Looked at: number of frames, size, marks of damage, time stamps (to half a tick of the file's),
    mean brightness, and the number of frames that the training decoder finds. `begin(phase,
    frame)` is called before every STEP_FRAMES frames. Raises DecodeError for what is no
    video at all.
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
    with open_video(path) as reader:
        found = {number, reader.num_frames}
    if found != {len(encoded.times_N)}:
        raise VerifyError(
            f"{len(encoded.times_N)} frames were encoded, {number} decode, and the training "
            f"decoder finds {reader.num_frames}"
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
