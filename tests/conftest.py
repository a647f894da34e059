"""Videos for the tests, made on the spot: every frame shows its own number.

Shape suffixes: T frames, H height, W width, C channels (RGB).
"""

import signal
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hiera_video.utils.machine import usable_cores

from .browser import browser as browser
from .small_runs import small_cfg as small_cfg
from .small_runs import tiny_set as tiny_set

# What a shell starts in the background ignores Ctrl-C, and so would the tools that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

BLOCK = 16  # pixels; large enough to survive any codec
BITS = 8


def _index_frames(num_frames: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames [T,H,W,C] with their number in 4 x 2 black and white blocks, over a moving ramp."""
    rows, columns = np.mgrid[:height, :width]
    frames_THWC = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    for index in range(num_frames):
        ramp = (2 * columns + rows + 5 * index) % 180 + 20
        frames_THWC[index] = np.stack([ramp, ramp // 2 + 60, 220 - ramp], axis=-1)
        for bit in range(BITS):
            y, x = (BLOCK * place for place in divmod(bit, 4))
            frames_THWC[index, y : y + BLOCK, x : x + BLOCK] = 235 if index >> bit & 1 else 20
    return frames_THWC


def _decode_index(frame_HWC: np.ndarray) -> int:
    """Read the number that `_index_frames` wrote, from an upright frame."""
    number = 0
    for bit in range(BITS):
        y, x = (BLOCK * place + BLOCK // 4 for place in divmod(bit, 4))
        number |= int(frame_HWC[y : y + BLOCK // 2, x : x + BLOCK // 2].mean() > 128) << bit
    return number


def _make_video(
    path: Path | str,
    frames_THWC: np.ndarray,
    *,
    fps: int = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    first_pts: int = 0,
    pts_step: int = 1,
    rotation: int = 0,
    mirrored: bool = False,
    pixel_ratio: Fraction | None = None,
) -> str:
    """Encode RGB frames.

    `rotation` in degrees counter-clockwise, `mirrored` and `pixel_ratio` (width of a pixel over its
    height) are only tags.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = pix_fmt
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        if pixel_ratio is not None:
            stream.codec_context.sample_aspect_ratio = pixel_ratio
        for index, frame_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = first_pts + pts_step * index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def _decode_all(path: str) -> list[np.ndarray]:
    """Decode a video from its start, without any seeking: the judge of what frame k is."""
    frames = []
    with av.open(path, metadata_errors="replace") as container:
        try:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1  # threads conceal damage differently
            for frame in container.decode(stream):
                turned_HWC = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                frames.append(turned_HWC)
        except av.FFmpegError:
            pass
    return frames


# Folders whose files take longest. They come first, so that at the end no process has a long file
# left while the others have none (pytest-xdist keeps this order with --no-loadscope-reorder).
LONGEST = ("distributed", "tools", "benchmark", "engine", "export", "faults", "serve", "report")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run one process more than there are cores: many tests wait for processes that they start."""
    return usable_cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files by their folders, the longest first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    root = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        return places.get(item.path.relative_to(root).parts[0], len(places))

    items.sort(key=place)


@pytest.fixture(scope="session")
def index_frames() -> Callable[..., np.ndarray]:
    return _index_frames


@pytest.fixture(scope="session")
def decode_index() -> Callable[[np.ndarray], int]:
    return _decode_index


@pytest.fixture(scope="session")
def make_video() -> Callable[..., str]:
    return _make_video


@pytest.fixture(scope="session")
def decode_all() -> Callable[[str], list[np.ndarray]]:
    return _decode_all


# Short closed groups with B-frames, so that a seek and a reordering happen within few frames.
_H264 = {"options": {"g": "12", "bf": "3", "sc_threshold": "0"}}
_OPEN = {"options": {"x264-params": "keyint=12:bframes=3:open-gop=1:scenecut=0"}}
_VP9 = {"codec": "libvpx-vp9", "options": {"g": "12", "deadline": "realtime", "cpu-used": "8"}}
_MPEG4 = {"codec": "mpeg4", "options": {"g": "12"}}
_ENCODINGS: dict[str, dict[str, Any]] = {
    "lossless.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"},
    "h264_b.mp4": _H264,
    "h264_b.mkv": _H264,
    "h264_b.avi": _H264,
    "h264_b.ts": _H264,
    "h264_b.flv": _H264,
    "h264_open_groups.mp4": _OPEN,
    "h264_late_start.mkv": {**_H264, "first_pts": 150},
    "h264_fragments.mp4": {
        **_H264,
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "h264_index_first.mp4": {**_H264, "container_options": {"movflags": "faststart"}},
    "h264_interlaced.mp4": {"options": {"g": "12", "x264-params": "interlaced=1"}},
    "hevc_open_groups.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:keyint=12:bframes=3:open-gop=1"},
    },
    "grey.mov": {"codec": "rawvideo", "pix_fmt": "gray"},  # MOV calls it a palette of greys
    "mpeg4.avi": _MPEG4,
    "msmpeg4.avi": {**_MPEG4, "codec": "msmpeg4"},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "12", "b": "1M", "deadline": "realtime"}},
    "vp9.webm": _VP9,
    "vp9_no_duration.webm": {**_VP9, "container_options": {"live": "1"}},
}


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Videos of 40 frames that show their number, by name: every way of lying in a file."""
    folder = tmp_path_factory.mktemp("videos with spaces, é")
    frames_THWC = _index_frames(40)
    paths = {
        name: _make_video(folder / name, frames_THWC, **encoding)
        for name, encoding in _ENCODINGS.items()
    }
    # decord 0.6 cannot turn a picture of 48 rows; one of 64 it can.
    tall_THWC = _index_frames(40, height=64, width=96)
    for name, rotation in (("turned", 90), ("turned_right", -90), ("upside_down", 180)):
        name = f"h264_{name}.mp4"
        paths[name] = _make_video(folder / name, tall_THWC, **_H264, rotation=rotation)
    odd_THWC = _index_frames(20, height=49, width=65)
    paths["odd_size.avi"] = _make_video(folder / "odd_size.avi", odd_THWC, **_MPEG4)
    for name in ("palette.avi", "palette.mov"):
        paths[name] = _palette_video(folder / name, frames_THWC)
    paths["one_frame.mp4"] = _make_video(folder / "one_frame.mp4", frames_THWC[:1])
    paths["two_streams.mp4"] = _two_streams(folder / "two_streams.mp4", frames_THWC)
    paths["edit_list.mp4"] = _hide_first_frames(folder / "edit_list.mp4", paths["h264_b.mp4"])
    paths["false_keys.mp4"] = _drop_list_of_keys(folder / "false_keys.mp4", paths["h264_b.mp4"])
    paths["false_keys.avi"] = _call_all_keys(folder / "false_keys.avi", paths["msmpeg4.avi"])
    paths["latin1_tag.mp4"] = _spoil_tag(folder / "latin1_tag.mp4", paths["h264_b.mp4"])
    paths["vp8_hidden.webm"] = _hide_packet(folder / "vp8_hidden.webm", paths["vp8.webm"])
    return paths


def _palette_video(path: Path, frames_THWC: np.ndarray) -> str:
    """Write the frames in 256 colours, three bits of red and green and two of blue."""
    levels = np.arange(256)
    red, green, blue = (levels >> 5) * 36, (levels >> 2 & 7) * 36, (levels & 3) * 85
    palette = np.stack([np.full(256, 255), red, green, blue], axis=1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=30)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "pal8"
        for index, frame_HWC in enumerate(frames_THWC):
            red, green, blue = (frame_HWC[..., channel] for channel in range(3))
            indices_HW = red >> 5 << 5 | green >> 5 << 2 | blue >> 6
            frame = av.VideoFrame.from_ndarray((indices_HW, palette), format="pal8")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def _inside_a_packet(path: str, position: int) -> int:
    """Return the first position from `position` on that is one byte into a packet.

    The encoder's sizes differ by a byte from run to run, and a file that ends where a packet does
    does not look cut off.
    """
    with av.open(path) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    return min(start for start in starts if start + 1 >= position) + 1


@pytest.fixture(scope="session")
def bad_videos(videos: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files that are no video, or not a whole one, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    whole = Path(videos["h264_index_first.mp4"]).read_bytes()
    cut = _inside_a_packet(videos["h264_index_first.mp4"], len(whole) * 6 // 10)
    codec = whole.replace(b"avc1", b"zzzz")
    noise = np.random.default_rng(0).integers(256, size=1000, dtype=np.uint8).tobytes()
    contents = {
        "empty.mp4": b"",
        "half_a_header.mp4": whole[: whole.index(b"moov") + 100],
        "no_header.mp4": Path(videos["h264_b.mp4"]).read_bytes()[:-2000],
        "cut_off.mp4": whole[:cut],
        "damaged.mp4": whole[:cut] + b"\xff" * (len(whole) - cut),
        "unknown_codec.mp4": codec,
        "noise.mp4": noise,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "directory.mp4").mkdir()
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    return {path.name: str(path) for path in folder.iterdir()} | {
        "missing.mp4": str(folder / "missing.mp4")
    }


def _two_streams(path: Path, frames_THWC: np.ndarray) -> str:
    """Write a short small stream first and a longer, larger one second."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for stream, size in zip(streams, (1, 2), strict=True):
            stream.height, stream.width = (size * side for side in frames_THWC.shape[1:3])
            stream.pix_fmt = "yuv420p"
        for stream, size in zip(streams, (1, 2), strict=True):
            for index, frame_HWC in enumerate(frames_THWC[: 20 * size]):
                large_HWC = frame_HWC.repeat(size, 0).repeat(size, 1)
                frame = av.VideoFrame.from_ndarray(large_HWC, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 30)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return str(path)


def _hide_first_frames(path: Path, source: str, *, num_frames: int = 5) -> str:
    """Move an mp4's edit list forward: its first frames, a key frame among them, are not shown."""
    data = bytearray(Path(source).read_bytes())
    # elst: version and flags, number of entries, then duration, media time, rate of the first.
    place = data.index(b"elst") + 4 + 4 + 4 + 4
    with av.open(source) as container:
        stream = container.streams.video[0]
        ticks = round(1 / (stream.average_rate * stream.time_base))
    media_time = int.from_bytes(data[place : place + 4], "big") + num_frames * ticks
    data[place : place + 4] = media_time.to_bytes(4, "big")
    path.write_bytes(data)
    return str(path)


def _call_all_keys(path: Path, source: str) -> str:
    """Mark every frame in an AVI's index as a key frame, as careless writers do."""
    data = bytearray(Path(source).read_bytes())
    place = data.index(b"idx1")
    size = int.from_bytes(data[place + 4 : place + 8], "little")
    for entry in range(place + 8, place + 8 + size, 16):  # chunk id, flags, offset, size
        data[entry + 4] |= 0x10
    path.write_bytes(data)
    return str(path)


def _drop_list_of_keys(path: Path, source: str) -> str:
    """Hide an mp4's list of key frames; without one, every frame counts as a key frame."""
    data = Path(source).read_bytes()
    path.write_bytes(data.replace(b"stss", b"free"))
    return str(path)


def _spoil_tag(path: Path, source: str) -> str:
    """Put a byte that is no UTF-8 into a text tag."""
    data = Path(source).read_bytes()
    tag = data.rindex(b"Lavf")
    path.write_bytes(data[:tag] + b"\xe9" + data[tag + 1 :])
    return str(path)


def _hide_packet(path: Path, source: str, *, number: int = 5) -> str:
    """Clear the show bit of one VP8 packet, as encoders do for a picture only referred to."""
    with av.open(source) as original, av.open(str(path), "w") as copy:
        stream = original.streams.video[0]
        out = copy.add_stream_from_template(stream)
        packets = (packet for packet in original.demux(stream) if packet.size)
        for place, packet in enumerate(packets):
            content = bytearray(bytes(packet))
            if place == number:
                content[0] &= ~0x10
            changed = av.Packet(bytes(content))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe = packet.is_keyframe
            changed.stream = out
            copy.mux(changed)
    return str(path)
