"""Make videos to time decoding with, as large and as hard to decode as those of Kinetics.

Legend: H height, W width (pixels), C colour (RGB); K moving objects.
"""

import os
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from hiera_video.data.decoders._container import open_output

_MARGIN = 64  # pixels by which the camera may move to each side
_NUM_THINGS = 6


@dataclass(frozen=True, slots=True)
class VideoKind:
    """Size and length of the videos; the defaults are those of a usual Kinetics video."""

    width: int = 340
    height: int = 256
    num_frames: int = 300
    fps: int = 30


def make_videos(folder: str, *, num_videos: int, kind: VideoKind | None = None) -> list[str]:
    """Write `num_videos` different H.264 files into `folder`; return their paths."""
    kind = kind or VideoKind()
    paths = [os.path.join(folder, f"video_{number}.mp4") for number in range(num_videos)]
    for seed, path in enumerate(paths):
        _encode(path, _Scene(np.random.default_rng(seed), kind), kind)
    return paths


class _Scene:
    """A camera moving over a textured ground, with textured objects that move independently.

    Textures have equal energy in every octave, as photographs have, and each frame has sensor
    noise. Without these, the codec and so the decoder would have little to do.
    """

    def __init__(self, rng: np.random.Generator, kind: VideoKind) -> None:
        self._rng = rng
        self._kind = kind
        size = kind.height + 2 * _MARGIN, kind.width + 2 * _MARGIN
        self._ground_HWC = _texture(rng, *size)
        side = min(kind.height, kind.width) // 2
        self._things_K = [
            (_texture(rng, side, side), _ellipse(rng, side)) for _ in range(_NUM_THINGS)
        ]
        self._speeds_K2 = rng.uniform(0.3, 2.0, (_NUM_THINGS + 1, 2))  # radians a second
        self._phases_K2 = rng.uniform(0, 2 * np.pi, (_NUM_THINGS + 1, 2))

    def frame(self, time_sec: float) -> np.ndarray:
        """Return the picture at a time, uint8 RGB [H, W, C]; every call draws new noise."""
        kind = self._kind
        sway_K2 = (1 + np.sin(self._speeds_K2 * time_sec + self._phases_K2)) / 2
        y, x = np.rint(sway_K2[-1] * 2 * _MARGIN).astype(int)
        picture_HWC = self._ground_HWC[y : y + kind.height, x : x + kind.width].copy()
        for (thing_HWC, inside_HW), sway_2 in zip(self._things_K, sway_K2, strict=False):
            side = len(thing_HWC)
            y, x = np.rint(sway_2 * (kind.height - side, kind.width - side)).astype(int)
            picture_HWC[y : y + side, x : x + side][inside_HW] = thing_HWC[inside_HW]
        noise_HW1 = self._rng.standard_normal((kind.height, kind.width, 1), dtype=np.float32)
        return np.clip(picture_HWC + noise_HW1, 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return float32 RGB [H, W, C] in 0..255 with a 1/f spectrum."""
    frequency_HW = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency_HW[0, 0] = np.inf
    noise_HWC = rng.standard_normal((height, width, 3))
    field_HWC = np.fft.irfft2(
        np.fft.rfft2(noise_HWC, axes=(0, 1)) / frequency_HW[..., None],
        s=(height, width),
        axes=(0, 1),
    )
    texture_HWC = 128 + 45 * field_HWC / field_HWC.std()
    return np.clip(texture_HWC, 0, 255).astype(np.float32)


def _ellipse(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return bool [H, W], True inside an ellipse that touches two opposite borders."""
    axis_HW = (np.arange(side) + 0.5) / side * 2 - 1
    flat = rng.uniform(1.0, 2.0)
    return np.hypot(axis_HW[:, None] * flat, axis_HW[None]) < 1


def _encode(path: str, scene: _Scene, kind: VideoKind) -> None:
    with open_output(path) as container:
        stream = container.add_stream("libx264", rate=kind.fps)
        stream.width, stream.height, stream.pix_fmt = kind.width, kind.height, "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        for number in range(kind.num_frames):
            picture_HWC = scene.frame(number / kind.fps)
            frame = av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, kind.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
