"""More videos for the decoders, and tests of a backend that is not installed left out."""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hiera_video.data.decoders import check_backend
from hiera_video.utils.errors import UserError

MS = Fraction(1, 1000)


def _timed_video(
    path: Path | str,
    frames_THWC: np.ndarray,
    times_ms: Sequence[int],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    **options: Any,
) -> str:
    """Encode RGB frames, frame k to be shown at `times_ms[k]`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = MS
        for frame_HWC, time_ms in zip(frames_THWC, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = int(time_ms), MS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="session")
def timed_video() -> Callable[..., str]:
    return _timed_video


@pytest.fixture(autouse=True)
def _skip_without_backend(request: pytest.FixtureRequest) -> None:
    """Skip a test whose parameter `backend` is not installed, and say what is missing."""
    parameters = getattr(request.node, "callspec", None)
    if parameters and "backend" in parameters.params:
        try:
            check_backend(parameters.params["backend"])
        except UserError as error:
            pytest.skip(str(error))


# Codecs that the encoders of a PyAV of one's own build may lack.
_MORE: dict[str, dict[str, Any]] = {
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:keyint=12:bframes=3:open-gop=0"},
    },
    "av1.mp4": {"codec": "libsvtav1", "options": {"g": "12", "preset": "12"}},
    "av1.mkv": {"codec": "libsvtav1", "options": {"g": "12", "preset": "12"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "12"}},
    "mpeg4_b.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "vp9_alt_ref.webm": {
        "codec": "libvpx-vp9",
        "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8"},
    },
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "animation.gif": {"codec": "gif", "pix_fmt": "rgb8", "fps": 10},
    "intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=24:bframes=0"}},
}


@pytest.fixture(scope="session")
def more_videos(
    videos: dict[str, str],
    make_video: Callable[..., str],
    index_frames: Callable[..., np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """The videos of all tests and those of `_MORE`, less what no encoder here can make."""
    folder = tmp_path_factory.mktemp("more videos, ü")
    paths = dict(videos)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "SVT_LOG", "1")  # errors only
        for name, encoding in _MORE.items():
            if encoding.get("codec", "libx264") in av.codecs_available:
                paths[name] = make_video(folder / name, index_frames(40), **encoding)
        if "libx264" in av.codecs_available:
            odd_THWC = index_frames(40, height=49, width=65)
            encoding = {"pix_fmt": "yuv444p", "options": {"g": "12", "bf": "3"}}
            paths["h264_odd.mp4"] = make_video(folder / "h264_odd.mp4", odd_THWC, **encoding)
    return paths


def _some_indices(num_frames: int) -> list[np.ndarray]:
    """Rows of indices: all, backwards, the last, strided runs, and random ones with repeats."""
    rng = np.random.default_rng(num_frames)
    rows = [np.arange(num_frames), np.arange(num_frames)[::-1], np.array([num_frames - 1] * 3)]
    for stride in (1, 2, 4, 7):
        start = int(rng.integers(num_frames))
        rows.append(np.minimum(start + stride * np.arange(8), num_frames - 1))
    rows += [rng.integers(num_frames, size=size) for size in (1, 1, 2, 5, 16)]
    return rows


@pytest.fixture(scope="session")
def some_indices() -> Callable[[int], list[np.ndarray]]:
    return _some_indices
