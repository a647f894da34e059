"""Make small videos of many kinds, and damage them in ways that are reproducible by number.

Legend: T frames, H height, W width, 3 RGB.
"""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

_SHAPE_THW = (40, 48, 64)
_H264 = {"options": {"g": "12", "bf": "3", "sc_threshold": "0"}}
_VP9 = {"codec": "libvpx-vp9", "options": {"g": "12", "deadline": "realtime", "cpu-used": "8"}}
_AV1 = {"codec": "libsvtav1", "options": {"g": "12", "preset": "12"}}
_SOURCES: dict[str, dict[str, Any]] = {
    "h264.mp4": _H264,
    "h264_index_first.mp4": {**_H264, "container": {"movflags": "faststart"}},
    "h264_fragments.mp4": {**_H264, "container": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.mkv": _H264,
    "h264.avi": _H264,
    "h264.ts": _H264,
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:keyint=12:bframes=3"},
    },
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12"}},
    "mpeg4_b.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "12", "b": "1M", "deadline": "realtime"}},
    "vp9.webm": _VP9,
    "av1.mp4": _AV1,
    "av1.mkv": _AV1,
    "animation.gif": {"codec": "gif", "pix_fmt": "rgb8", "fps": 10},
}


def make_sources(folder: Path) -> dict[str, bytes]:
    """Make videos of 40 frames of 64 x 48 px in `folder`; return them by name."""
    os.environ["SVT_LOG"] = "1"  # errors only
    frames_THWC = _moving_picture()
    sources = {}
    for name, encoding in _SOURCES.items():
        if encoding.get("codec", "libx264") in av.codecs_available:
            _encode(folder / name, frames_THWC, **encoding)
            sources[name] = (folder / name).read_bytes()
    return sources


def mutant(number: int, seed: int, sources: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the name of file `number` for `seed`, which describes the damage, and its bytes."""
    names, kinds = list(sources), list(_DAMAGE)
    name = names[number % len(names)]
    kind = kinds[number // len(names) % len(kinds)]
    rng = np.random.default_rng([seed, number])
    others = [sources[other] for other in names if other != name]
    donor = others[rng.integers(len(others))]
    content = _DAMAGE[kind](sources[name], rng, donor)
    return f"{number:05d} {kind} {name}", content


def _moving_picture() -> np.ndarray:
    """Return frames that are all different: a moving ramp and a jumping square."""
    num_frames, height, width = _SHAPE_THW
    rows, columns = np.mgrid[:height, :width]
    rng = np.random.default_rng(0)
    frames_THWC = np.empty((num_frames, height, width, 3), np.uint8)
    for frame_HWC in frames_THWC:
        ramp = (2 * columns + rows + rng.integers(180)) % 180 + 20
        frame_HWC[:] = np.stack([ramp, ramp // 2 + 60, 220 - ramp], axis=-1)
        top, left = rng.integers(height - 16), rng.integers(width - 16)
        frame_HWC[top : top + 16, left : left + 16] = rng.integers(256, size=3)
    return frames_THWC


def _encode(
    path: Path,
    frames_THWC: np.ndarray,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 30,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> None:
    # Leave out the date and the random number that Matroska would contain.
    settings = {"fflags": "bitexact", **(container or {})}
    with av.open(str(path), "w", options=settings) as file:
        stream = file.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = pix_fmt
        for index, frame_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def _range(rng: np.random.Generator, size: int, longest: float = 0.2) -> tuple[int, int]:
    """Return start and end of a range, from 1 byte to a fraction `longest`, mostly short."""
    length = 1 + int(longest * size * rng.random() ** 3)
    start = int(rng.integers(max(1, size - length)))
    return start, min(start + length, size)


def _flip(content: bytes, rng: np.random.Generator, donor: bytes) -> bytes:
    """Change 1 to 100 bytes at random places."""
    data = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(len(data), size=int(100 ** rng.random()))
    data[places] ^= rng.integers(1, 256, size=len(places), dtype=np.uint8)
    return data.tobytes()


def _flip_header(content: bytes, rng: np.random.Generator, donor: bytes) -> bytes:
    """Change up to ten bytes near the start or near the end, where mp4 has its index."""
    data = np.frombuffer(content, np.uint8).copy()
    near = min(1000, len(data))
    places = rng.integers(near, size=int(10 ** rng.random()))
    if rng.random() < 0.5:
        places = len(data) - 1 - places
    data[places] ^= rng.integers(1, 256, size=len(places), dtype=np.uint8)
    return data.tobytes()


def _truncate(content: bytes, rng: np.random.Generator, donor: bytes) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _overwrite(content: bytes, rng: np.random.Generator, donor: bytes) -> bytes:
    """Overwrite a range with noise, zeros or ones."""
    start, end = _range(rng, len(content))
    filling = [rng.bytes(end - start), bytes(end - start), b"\xff" * (end - start)]
    return content[:start] + filling[rng.integers(3)] + content[end:]


def _swap(content: bytes, rng: np.random.Generator, donor: bytes) -> bytes:
    """Exchange two blocks of the same length."""
    length = 1 + int(0.2 * len(content) * rng.random() ** 2)
    one = int(rng.integers(len(content) - 2 * length))
    two = int(rng.integers(one + length, len(content) - length + 1))
    parts = (
        content[:one],
        content[two : two + length],
        content[one + length : two],
        content[one : one + length],
        content[two + length :],
    )
    return b"".join(parts)


def _splice(content: bytes, rng: np.random.Generator, donor: bytes) -> bytes:
    """Replace the beginning by the header of another video, of the same length or not."""
    length = int(rng.integers(1, 1500))
    resume = length if rng.random() < 0.5 else int(rng.integers(1, 1500))
    return donor[:length] + content[resume:]


def _remove(content: bytes, rng: np.random.Generator, donor: bytes) -> bytes:
    start, end = _range(rng, len(content))
    return content[:start] + content[end:]


def _repeat(content: bytes, rng: np.random.Generator, donor: bytes) -> bytes:
    start, end = _range(rng, len(content))
    return content[:end] + content[start:end] + content[end:]


_DAMAGE: dict[str, Callable[[bytes, np.random.Generator, bytes], bytes]] = {
    "flip": _flip,
    "flip_header": _flip_header,
    "truncate": _truncate,
    "overwrite": _overwrite,
    "swap": _swap,
    "splice": _splice,
    "remove": _remove,
    "repeat": _repeat,
}
