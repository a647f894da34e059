"""Videos whose frames are shown at times of one's choice."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

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
