"""Find the frames of a video from its packets, without decoding.

A container may state no frame count (webm), a wrong one, or one that includes frames that an edit
list hides. The packets are more reliable, and reading all of them takes a millisecond or two for a
ten-second clip.

Legend: P packets in the order of the file, N frames in presentation order, K key frames.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np

from hiera_video.data.decoders._clock import header_rate
from hiera_video.data.decoders._container import DecodeError, open_container

# Containers that store a presentation time for every packet. Others, mainly AVI, store at most the
# decoding order, and FFmpeg then guesses the pts.
_STORING_PTS = frozenset({"mov", "matroska", "webm", "mpegts", "mpeg", "flv", "asf", "gif", "nut"})

_CLOCK_RESTARTS = 0x0200  # AVFMT_TS_DISCONT

# FFmpeg's names of side data that applies to all later packets. A file stores it once, so a decoder
# lacks it after a seek: 8-bit palette video would be black.
_SETTINGS = ("palette", "new_extradata", "param_change")

# x264 writes its version into a message (SEI), usually in the first packet only. FFmpeg decodes
# differently to work around bugs of old versions: 4:4:4 before 151, B-frames up to 33.
_X264_NAME = b"x264 - core "
_FIRST_RIGHT_444 = 151
_LAST_WRONG_ALL = 33


@dataclass(frozen=True, slots=True)
class PacketTable:
    """The frames of one video stream in presentation order, read without decoding.

    pts_N: int64, the time of frame k; fewer than `num_frames` if the file is truncated.
    time_base: the unit of these times in seconds.
    key_frames_K, key_pts_K: int64, the frames decoding can start from, and the times to seek to.
    num_frames: the frames the file promises. stated_fps: the header's frame rate; 0.0 if none.
    step_pts: the median of the forward steps between packets in file order; 0.0 if there is none.
    has_times: whether the time stamps are the file's own, not guessed by FFmpeg.
    clock_restarts: whether the format allows its clock to restart in the middle of a file.
    stores_pts: whether the container stores presentation times.
    closed_groups: no frame is coded after a key frame and shown before it, and none is hidden.
    whole_keys: every H.264 key frame is complete by itself, not only some frames later.
    doubt: the reason why time stamps cannot be used to find a frame; "" if they can.
    """

    pts_N: np.ndarray
    time_base: Fraction
    key_frames_K: np.ndarray
    key_pts_K: np.ndarray
    num_frames: int
    stated_fps: float
    step_pts: float
    has_times: bool
    clock_restarts: bool
    stores_pts: bool
    closed_groups: bool
    whole_keys: bool
    doubt: str

    @property
    def usual_step_pts(self) -> float:
        """The step between frames from the header's rate, else `step_pts`; 0.0 if unknown."""
        if self.stated_fps and self.time_base:
            return float(1 / (self.stated_fps * self.time_base))
        return self.step_pts


@dataclass(frozen=True, slots=True)
class _Packet:
    pts: int | None
    dts: int | None
    is_key: bool
    is_shown: bool
    is_whole: bool
    has_settings: bool


def open_stream(
    file: str, path: str, *, needs_decoder: bool = True
) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open `file` and its best video stream according to FFmpeg, with one decoder thread.

    `path` names the video in errors. Raises DecodeError if the file is not a video or holds no
    video stream. With `needs_decoder`, it also raises if PyAV was built without the codec;
    otherwise `codec_context` is then None.
    """
    container = open_container(file, path)
    stream = container.streams.best("video")
    # The cover picture of a song is a video stream, but not a video.
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        others = sorted({other.type for other in container.streams if other is not stream})
        container.close()
        found = f"only {', '.join(others)}" if others else "damaged or truncated in its header"
        raise DecodeError(path, f"holds no video stream ({found}).")
    if stream.codec_context is not None and has_software(stream.codec_context.codec):
        # Loader workers already run in parallel, so more threads would only compete.
        stream.codec_context.thread_count = 1
    elif needs_decoder:
        name = stream.codec_context.name if stream.codec_context else ""
        container.close()
        known = f"{name}, which this PyAV decodes on hardware only" if name else ""
        raise DecodeError(path, f"its video is in a codec {known or 'that FFmpeg does not know'}.")
    return container, stream


def has_software(codec: av.Codec) -> bool:
    """Return whether FFmpeg decodes `codec` in software; its own "av1" needs hardware."""
    return codec.name != "av1"


def demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Yield the packets of `stream`, then an empty one, like PyAV's `demux`.

    PyAV fails on packets of a stream that appears only while reading (MPEG-TS announces none). They
    belong to other streams, so this function skips them.
    """
    at_end = False
    while True:
        try:
            for packet in container.demux(stream):
                at_end = packet.size == 0
                yield packet
            return
        except IndexError:
            if at_end:
                return


def decode(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    """Decode and yield the frames of `stream` from the current position of the container."""
    for packet in demux(container, stream):
        yield from packet.decode()


def scan(container: av.container.InputContainer, stream: av.VideoStream) -> PacketTable:
    """Read all packets of `stream` into a table, without decoding; leave the container at its end.

    For a truncated file, `num_frames` is the frame count of its header, if there is one. Reading a
    missing frame is then an error; the file does not pass as a shorter video.
    """
    packets_P, broken = _read(container, stream)
    stores_pts = not _STORING_PTS.isdisjoint(container.format.name.split(","))
    num_shown = sum(packet.is_shown for packet in packets_P)
    pts_N = _sorted_times(packet for packet in packets_P if packet.is_shown)
    key_pts_K = _sorted_times(packet for packet in packets_P if packet.is_key)
    decoder = stream.codec_context
    reorders = decoder is None or bool(decoder.has_b_frames)
    return PacketTable(
        pts_N=pts_N,
        time_base=stream.time_base or Fraction(0),
        key_frames_K=np.searchsorted(pts_N, key_pts_K),
        key_pts_K=key_pts_K,
        num_frames=max(num_shown, stream.frames) if broken else num_shown,
        stated_fps=float(header_rate(stream) or 0),
        step_pts=_step(packets_P),
        has_times=stores_pts or not reorders,
        clock_restarts=bool(container.format.flags & _CLOCK_RESTARTS),
        stores_pts=stores_pts,
        closed_groups=num_shown == len(packets_P) and _groups_are_closed(packets_P),
        whole_keys=all(packet.is_whole for packet in packets_P if packet.is_key),
        doubt=_doubt(packets_P, guessed=reorders and not stores_pts),
    )


def count_decodable(file: str, path: str) -> tuple[int, bool]:
    """Decode the complete video; return the number of frames, and whether it ended in an error."""
    stamps, damaged = decoded_stamps(file, path)
    return len(stamps), damaged


def decoded_stamps(
    file: str, path: str, begin: Callable[[int], object] = lambda number: None
) -> tuple[list[int | None], bool]:
    """Decode the complete video; return the frames' time stamps, and whether it ended in an error.

    `begin` is called with the number of each frame before it is decoded.
    """
    container, stream = open_stream(file, path)
    stamps: list[int | None] = []
    with container:
        try:
            begin(0)
            for frame in decode(container, stream):
                stamps.append(frame.pts)
                begin(len(stamps))
        except av.FFmpegError:
            return stamps, True
    return stamps, False


def _read(
    container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[list[_Packet], bool]:
    """Read all packets; return them, and whether the file is truncated in one of them."""
    decoder = stream.codec_context
    codec = decoder.codec.canonical_name if decoder else "unknown"
    packets: list[_Packet] = []
    cut_off = False
    try:
        for packet in demux(container, stream):
            if packet.size == 0:
                continue  # tells a decoder to flush; holds no frame
            hidden = packet.is_discard or (codec in ("vp8", "vp9") and _is_hidden(packet, codec))
            is_whole = not (codec == "h264" and packet.is_keyframe) or _is_idr(
                bytes(packet), decoder.extradata
            )
            has_settings = _brings_settings(packet) or (
                codec == "h264" and not packets and _names_old_x264(bytes(packet), decoder.pix_fmt)
            )
            packets.append(
                _Packet(
                    packet.pts,
                    packet.dts,
                    packet.is_keyframe,
                    not hidden,
                    is_whole,
                    has_settings,
                )
            )
            cut_off = packet.is_corrupt
    except av.FFmpegError:
        cut_off = True
    return packets, cut_off


def _brings_settings(packet: av.Packet) -> bool:
    """Return whether a packet holds settings that the decoder needs for all later packets."""
    # Most packets have no side data, and `has_sidedata` is slow.
    with suppress(IndexError):  # side data of a kind that PyAV does not know
        if next(packet.iter_sidedata(), None) is None:
            return False
    return any(map(packet.has_sidedata, _SETTINGS))


def _is_hidden(packet: av.Packet, codec: str) -> bool:
    """Return whether a VP8 or VP9 packet holds only a reference picture, which is never shown."""
    data = bytes(packet)
    if codec == "vp8":  # RFC 6386, section 9.1
        return not data[0] & 0x10
    # VP9 bitstream specification, section 6.2 and annex B. A superframe ends in an index and holds
    # hidden pictures and one that is shown.
    if data[-1] & 0xE0 == 0xC0:
        num_pictures, size_length = (data[-1] & 7) + 1, (data[-1] >> 3 & 3) + 1
        if data[-2 - num_pictures * size_length :][:1] == data[-1:]:
            return False
    bits = data[0] << 1 if data[0] & 0x30 == 0x30 else data[0]  # profile 3 has one bit more
    shows_existing, is_shown = bits & 0x08, bits & 0x02
    return not shows_existing and not is_shown


def _step(packets_P: list[_Packet]) -> float:
    """Return the median forward step in time between packets in file order, or 0.0."""
    times = [packet.pts if packet.dts is None else packet.dts for packet in packets_P]
    steps = [
        after - before
        for before, after in pairwise(time for time in times if time is not None)
        if after > before
    ]
    return float(np.median(steps)) if steps else 0.0


def _is_idr(data: bytes, extradata: bytes | None) -> bool:
    """Return whether an H.264 key frame is an IDR picture (ITU-T H.264, 7.4.1.2).

    Decoding can always start at an IDR picture. At other key frames the picture may build up over
    several frames (intra refresh), or later frames may refer to frames before the key frame.
    """
    if not extradata or extradata[0] != 1:
        return True  # start codes instead of lengths: AVI and MPEG-TS, refused for other reasons
    length_size = (extradata[4] & 3) + 1 if len(extradata) > 4 else 4
    place = 0
    while place + length_size < len(data):
        unit_type = data[place + length_size] & 0x1F
        if unit_type in (1, 5):  # the first slice of a picture: other, IDR
            return unit_type == 5
        place += length_size + int.from_bytes(data[place : place + length_size], "big")
    return False


def _names_old_x264(data: bytes, pix_fmt: str | None) -> bool:
    """Return whether an H.264 packet names an x264 version whose bugs FFmpeg works around."""
    name = data.find(_X264_NAME)
    if name < 0:
        return False
    number = re.match(rb"\d{1,9}", data[name + len(_X264_NAME) :][:9])
    is_444 = (pix_fmt or "").startswith(("yuv444", "yuvj444", "gbr"))
    limit = _FIRST_RIGHT_444 if is_444 else _LAST_WRONG_ALL + 1
    return number is not None and int(number[0]) < limit


def _sorted_times(packets: Iterable[_Packet]) -> np.ndarray:
    return np.array(sorted(p.pts for p in packets if p.pts is not None), dtype=np.int64)


def _doubt(packets_P: list[_Packet], *, guessed: bool) -> str:
    """Return the reason why the time stamps do not order the frames, or "".

    `guessed`: the time stamps are guesses of FFmpeg.
    """
    times = [packet.pts for packet in packets_P if packet.is_shown]
    known = [pts for pts in times if pts is not None]
    if len(known) < len(times):
        return "frames without a time stamp"
    if len(set(known)) < len(known):
        return "frames that share a time stamp"
    if _steps_back(packets_P):
        return "time stamps that step back"
    if any(packet.has_settings for packet in packets_P):
        return "a palette or other settings that come with its packets"
    if packets_P and not packets_P[0].is_key:
        return "no key frame at its start"
    if known and packets_P[0].pts is not None and min(known) < packets_P[0].pts:
        return "frames shown before its first key frame"
    if guessed and known == sorted(known):
        return "B-frames in a container that does not store when a frame is shown"
    return ""


def _steps_back(packets_P: list[_Packet]) -> bool:
    """Return whether decoding times, or times of key frames, step back in file order."""
    decoded = [packet.dts for packet in packets_P if packet.dts is not None]
    shown_keys = [packet.pts for packet in packets_P if packet.is_key and packet.pts is not None]
    return any(after < before for row in (decoded, shown_keys) for before, after in pairwise(row))


def _groups_are_closed(packets_P: list[_Packet]) -> bool:
    """Return whether every frame is shown after the last key frame coded before it."""
    key_pts = None
    for packet in packets_P:
        key_pts = packet.pts if packet.is_key else key_pts
        if packet.pts is None or key_pts is None or packet.pts < key_pts:
            return False
    return True
