"""Re-encode one video to be small and quick to decode, keeping its frames and their times.

The output is H.264 without B-frames, with x264's `fastdecode` (no CABAC, no deblocking, no
weighted prediction). Its groups have 12 frames, so that few frames must be decoded before the
first of a clip. The picture is no larger than training needs. docs/data.md has the figures.

Legend: H x W a picture, N the frames of a video.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation

from hiera_video.data.decoders._container import open_output
from hiera_video.data.decoders._packets import (
    PacketTable,
    decoded_stamps,
    demux,
    open_stream,
    scan,
)
from hiera_video.data.decoders._picture import DisplayMatrix, display_matrix, pixel_ratio, upright
from hiera_video.data.decoders._reader import DecodeError, fetch_file
from hiera_video.data.decoders._timeline import Timeline, timeline_of
from hiera_video.data.prepare.clock import OutputClock
from hiera_video.data.prepare.matroska import is_cut_off
from hiera_video.utils.errors import UserError

PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow"),
)
STEP_FRAMES = 64  # the time limit applies to this many frames, so a long video may take longer


class Phase(IntEnum):
    """The stage that the work on a file has reached."""

    OPENING = 0
    ENCODING = 1
    FINISHING = 2
    VERIFYING = 3
    MOVING = 4


Begin = Callable[[Phase, int], object]


class OutputError(Exception):
    """The output could not be written: a fault of the disk, not of the video."""

    def __init__(self, code: int | None, words: str) -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words


@dataclass(frozen=True, slots=True)
class Encoding:
    """Settings of the encoder; the options of `prepare_videos` explain each field."""

    short_side: int = 256
    crf: int = 20
    gop: int = 12
    preset: str = "veryfast"

    def check(self) -> None:
        """Raise UserError for a value out of range."""
        if self.short_side < 16 or self.short_side % 2:
            raise UserError(
                f"--short-side must be an even number of at least 16, got {self.short_side}. "
                "Try 256."
            )
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf must be in 0..51, got {self.crf}. Try 20.")
        if self.gop < 1:
            raise UserError(f"--gop must be at least 1, got {self.gop}. Try 12.")
        if self.preset not in PRESETS:
            raise UserError(f"--preset must be one of {', '.join(PRESETS)}, got {self.preset}.")

    def as_dict(self) -> dict[str, int | str]:
        """Return the fields by name, for the journal."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder was given; `verify` compares the written file with it.

    times_N: seconds after the first frame, rising. timeline: the timeline on which training would
    see these frames in the source. brightness_N: mean luma of each picture, in [0, 255].
    num_damaged: frames of the source that the decoder marked as damaged. pixel_ratio: width of a
    pixel divided by its height. is_seekable: the source's packets are trusted and were all
    decoded, so its frames can also be found by seeking.
    """

    width: int
    height: int
    times_N: list[Fraction]
    timeline: Timeline
    brightness_N: list[float]
    num_damaged: int
    pixel_ratio: Fraction
    is_seekable: bool


def target_size(width: int, height: int, *, short_side: int) -> tuple[int, int]:
    """Return an even (width, height) of the same shape, the short side at most `short_side`.

    A picture is never enlarged, except that a side of one pixel becomes two.
    """
    scale = Fraction(min(short_side, width, height), min(width, height))
    sides = (width * scale, height * scale)
    if scale == 1:
        return max(2, width // 2 * 2), max(2, height // 2 * 2)
    return max(2, round(sides[0] / 2) * 2), max(2, round(sides[1] / 2) * 2)


def encode(source: str, target: str, encoding: Encoding, begin: Begin) -> Encoded:
    """Re-encode the video stream of `source` that training would read into the mp4 `target`.

    Applies rotation tags to the pixels and keeps the ratio of pixels that are not square. Drops
    sound and other streams. Keeps time stamps, counted from the first frame, so that a variable
    frame rate stays variable. Where the clock steps back or jumps, frames continue at the usual
    step. Calls `begin(phase, frame)` at the start and before every STEP_FRAMES frames.

    Raises DecodeError if the source cannot be read to its end, changes its picture size or holds
    no frames. Raises OutputError if `target` cannot be written.
    """
    begin(Phase.OPENING, 0)
    file = fetch_file(source)
    table = _packets(file, source)
    clock = OutputClock(table, lambda: _stamps(file, source, begin))
    container, stream = open_stream(file, source)
    with container:
        writer: _Writer | None = None
        brightness: list[float] = []
        stamps: list[int | None] = []
        num_damaged = 0
        try:
            for frame in _all_frames(container, stream, source):
                if len(brightness) % STEP_FRAMES == 0:
                    begin(Phase.ENCODING, len(brightness))
                if writer is None:
                    writer = _Writer(target, frame, encoding, clock, pixel_ratio(stream))
                num_damaged += frame.is_corrupt
                stamps.append(frame.pts)
                brightness.append(writer.write(frame, source))
            if writer is None:
                raise DecodeError(source, "holds a video stream without frames.")
            begin(Phase.FINISHING, len(brightness))
            writer.close()
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise
    return Encoded(
        writer.width,
        writer.height,
        clock.times_N(),
        timeline_of(table, num_frames=len(stamps), stamps=stamps),
        brightness,
        num_damaged,
        writer.pixel_ratio,
        is_seekable=not table.doubt and not num_damaged and len(stamps) == table.num_frames,
    )


def _packets(file: str, source: str) -> PacketTable:
    """Return the packets of a video. Raises DecodeError for a truncated file."""
    container, stream = open_stream(file, source)
    with container:
        if is_cut_off(file):
            raise DecodeError(source, "breaks off: the file is shorter than its header says.")
        return scan(container, stream)


def _stamps(file: str, source: str, begin: Begin) -> list[int | None]:
    """Return the time stamps of all frames decoded from `source`."""

    def begin_step(number: int) -> None:
        if number and number % STEP_FRAMES == 0:
            begin(Phase.OPENING, number)

    return decoded_stamps(file, source, begin_step)[0]


def _all_frames(
    container: av.container.InputContainer, stream: av.VideoStream, source: str
) -> Iterator[av.VideoFrame]:
    """Yield every frame. Raises DecodeError for a truncated file or when decoding fails."""
    num_packets = num_frames = 0
    cut_off = False
    try:
        for packet in demux(container, stream):
            if packet.size:
                num_packets += 1
                cut_off = packet.is_corrupt
            for frame in packet.decode():
                num_frames += 1
                yield frame
    except av.FFmpegError as error:
        raise DecodeError(
            source, f"stops to decode after {num_frames} frames ({_words(error)})."
        ) from None
    # An mp4 states its number of frames. A file with fewer was truncated.
    promised = stream.frames if "mp4" in container.format.name.split(",") else 0
    if cut_off or num_packets < promised:
        of_all = f" of {promised}" if num_packets < promised else ""
        raise DecodeError(source, f"breaks off after {num_packets}{of_all} frames.")


class _Writer:
    """Write an mp4 file frame by frame; raises OutputError if the file cannot be written."""

    def __init__(
        self,
        target: str,
        first: av.VideoFrame,
        encoding: Encoding,
        clock: OutputClock,
        ratio: Fraction,
    ) -> None:
        self._clock = clock
        self._source_size = (first.width, first.height)
        self._is_quarter_turn = _is_quarter_turn(display_matrix(first))
        self.pixel_ratio = 1 / ratio if self._is_quarter_turn else ratio
        sides = self._source_size[:: -1 if self._is_quarter_turn else 1]
        self.width, self.height = target_size(*sides, short_side=encoding.short_side)
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._container = None
        try:
            # With the index in front, reading over a network can start at once.
            self._container = open_output(target, format="mp4", options={"movflags": "+faststart"})
        except (av.FFmpegError, OSError) as error:
            raise _output_error(error) from None
        picture = self._scaled(first)
        stream = self._container.add_stream("libx264", rate=clock.fps)
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        context = stream.codec_context
        context.time_base = clock.time_base
        context.sample_aspect_ratio = self.pixel_ratio
        context.thread_count = 1  # several processes encode in parallel, one video each
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(context, name, getattr(picture, name))
        stream.options = {
            "preset": encoding.preset,
            "crf": str(encoding.crf),
            "tune": "fastdecode",
            "g": str(encoding.gop),
            "bf": "0",
        }
        self._stream = stream

    def write(self, frame: av.VideoFrame, source: str) -> float:
        """Encode one frame of the source; return the mean luma of the picture encoded."""
        size, before = (frame.width, frame.height), self._source_size
        matrix = display_matrix(frame)
        if size != before or _is_quarter_turn(matrix) != self._is_quarter_turn:
            raise DecodeError(
                source,
                f"its picture changes size on the way ({before[0]}x{before[1]}, then "
                f"{size[0]}x{size[1]}).",
            )
        picture = self._upright(self._scaled(frame), matrix)
        picture.pts, picture.time_base = self._clock.next(frame.pts), self._clock.time_base
        picture.pict_type = av.video.frame.PictureType.NONE  # else x264 keeps the source's type
        brightness = float(picture.to_ndarray()[: self.height].mean())
        self._mux(picture)
        return brightness

    def close(self) -> None:
        """Finish the file."""
        self._mux(None)
        assert self._container is not None
        try:
            self._container.close()
        except (av.FFmpegError, OSError) as error:
            raise _output_error(error) from None
        self._container = None

    def abandon(self) -> None:
        """Close the file without finishing it, which leaves it unusable."""
        if self._container is not None:
            # The caller reports the first error; one while closing would hide it.
            with suppress(av.FFmpegError, OSError):
                self._container.close()

    def _mux(self, picture: av.VideoFrame | None) -> None:
        assert self._container is not None
        packets = self._stream.encode(picture)
        try:
            self._container.mux(packets)
        except (av.FFmpegError, OSError) as error:
            raise _output_error(error) from None

    def _scaled(self, frame: av.VideoFrame) -> av.VideoFrame:
        sides = (self.width, self.height)[:: -1 if self._is_quarter_turn else 1]
        return self._reformatter.reformat(
            frame, *sides, "yuv420p", interpolation=Interpolation.BICUBIC, threads=1
        )

    def _upright(self, picture: av.VideoFrame, matrix: DisplayMatrix | None) -> av.VideoFrame:
        if matrix is None:
            return picture
        height, width = picture.height, picture.width
        planes_P = picture.to_ndarray().reshape(-1)
        ends = (height * width, height * width * 5 // 4)
        luma, blue, red = np.split(planes_P, ends)
        turned = [
            upright(plane.reshape(sides)[..., None], matrix).reshape(-1)
            for plane, sides in (
                (luma, (height, width)),
                (blue, (height // 2, width // 2)),
                (red, (height // 2, width // 2)),
            )
        ]
        packed_HW = np.concatenate(turned).reshape(self.height * 3 // 2, self.width)
        return av.VideoFrame.from_ndarray(packed_HW, format="yuv420p")


def _is_quarter_turn(matrix: DisplayMatrix | None) -> bool:
    return matrix is not None and matrix.is_quarter_turn


def _output_error(error: OSError) -> OutputError:
    return OutputError(error.errno, _words(error))


def _words(error: OSError) -> str:
    code = error.errno
    known = code in errno.errorcode if code else False
    return os.strerror(code) if known and code else str(error.strerror or error)
