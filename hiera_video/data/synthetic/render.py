"""Draw a demo clip: one clearly bright or dark object that lights a dim background.

Shape legend: T frames, H height, W width, C colour (RGB). Colours are float32 in 0..1 until they
are written as uint8. `u` and `v` are coordinates of the object: `u` points in its direction, and
its radius is 1.
"""

import colorsys
from collections.abc import Callable

import numpy as np

from hiera_video.data.synthetic.motion import MOTIONS, Track, draw_track

Field = np.ndarray  # float32 [T, H, W]


def _box(u: Field, v: Field, u0: float, u1: float, half_v: float) -> Field:
    return np.maximum(np.abs(u - (u0 + u1) / 2) - (u1 - u0) / 2, np.abs(v) - half_v)


def _wedge(u: Field, v: Field, tail: float, half_v: float) -> Field:
    # A triangle with its tip at u = 1 and its base at u = tail.
    length = 1 - tail
    side = (half_v * (u - 1) + length * np.abs(v)) / np.float32(np.hypot(half_v, length))
    return np.maximum(side, tail - u)


# Shape -> its distance function, negative inside. With its marking, no shape is symmetric under
# rotation, so that both a turn and its direction are visible.
SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "wedge": lambda u, v: _wedge(u, v, -0.75, 0.75),
    "bar": lambda u, v: _box(u, v, -1.0, 1.0, 0.4),
    "egg": lambda u, v: (np.hypot(u, v * (1.6 + 0.4 * u)) - 1) / np.float32(1.4),
    "moon": lambda u, v: np.maximum(np.hypot(u, v) - 1, 0.8 - np.hypot(u - 0.6, v)),
    "tee": lambda u, v: np.minimum(_box(u, v, -1.0, 0.5, 0.32), _box(u, v, 0.35, 0.85, 0.85)),
    "arrow": lambda u, v: np.minimum(_box(u, v, -1.0, 0.2, 0.3), _wedge(u, v, 0.0, 0.85)),
}

# All markings are in the rear half, which every shape fills.
MARKINGS: dict[str, Callable[[Field, Field], Field]] = {
    "spot": lambda u, v: np.hypot(u + 0.5, v) - 0.25,
    "tail": lambda u, v: u + 0.4,
    "band": lambda u, v: np.abs(u + 0.45) - 0.2,
}


def render_clip(
    rng: np.random.Generator,
    motion: str,
    *,
    size: int = 72,
    num_frames: int = 24,
    shape: str | None = None,
    bright: bool | None = None,
) -> np.ndarray:
    """Draw a clip of class `motion`; all else is random and independent of the class.

    `motion` is a key of `MOTIONS`; `size` the side in pixels. `shape` (a key of `SHAPES`) and
    `bright` (or dark) are drawn too if they are None. Returns uint8 frames_THWC [T, size, size,
    3], RGB, a pure function of the generator's state and the arguments.
    """
    assert motion in MOTIONS, motion
    track = draw_track(rng, motion, num_frames=num_frames)
    random_shape, random_bright = str(rng.choice(list(SHAPES))), bool(rng.integers(2))
    frames_THWC = _background(rng, track, size=size)
    _paint_object(
        rng,
        frames_THWC,
        track,
        shape=random_shape if shape is None else shape,
        bright=random_bright if bright is None else bright,
    )
    return (np.clip(frames_THWC, 0, 1) * 255 + 0.5).astype(np.uint8)


def _pixel_centres(size: int) -> np.ndarray:
    return ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)


def _color(rng: np.random.Generator, value: tuple[float, float], saturation: float) -> np.ndarray:
    rgb = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, saturation), rng.uniform(*value))
    return np.asarray(rgb, dtype=np.float32)


def _background(rng: np.random.Generator, track: Track, *, size: int) -> np.ndarray:
    # A dim, nearly grey background that the object lights: less with distance, more in the
    # direction in which the object points. Every part of it thus depends smoothly on the object's
    # place, size and angle, which a model can predict for hidden parts. (A masked autoencoder
    # normalises each patch. On an even background it would have to predict the codec's noise, on a
    # tinted one the tint.)
    x_TW = _pixel_centres(size) - track.camera_x_T[:, None].astype(np.float32)
    y_TH = _pixel_centres(size) - track.camera_y_T[:, None].astype(np.float32)
    color_C = _color(rng, (0.9, 1.0), 0.15)
    slope_x, slope_y = rng.uniform(-0.05, 0.05, size=2).astype(np.float32)
    slope_THW = (slope_x * x_TW)[:, None, :] + (slope_y * y_TH)[:, :, None]
    u_THW, v_THW = _own_coordinates(track, size=size)
    distance_THW = np.hypot(u_THW, v_THW)
    beam_THW = 1 + np.float32(0.5) * u_THW / (1 + distance_THW)
    glow_THW = beam_THW / (1 + (distance_THW / np.float32(2.2)) ** 2)
    light_THW = np.float32(0.18) + np.float32(0.25) * glow_THW + slope_THW
    return np.clip(light_THW[..., None] * color_C, 0.1, 0.45)


def _own_coordinates(track: Track, *, size: int) -> tuple[Field, Field]:
    """Return `u` and `v` of every pixel."""
    x_T, y_T, radius_T, angle_T = (
        values_T.astype(np.float32)[:, None, None]
        for values_T in (track.x_T, track.y_T, track.radius_T, track.angle_T)
    )
    x_THW = (_pixel_centres(size)[None, None, :] - x_T) / radius_T
    y_THW = (_pixel_centres(size)[None, :, None] - y_T) / radius_T
    u_THW = np.cos(angle_T) * x_THW + np.sin(angle_T) * y_THW
    v_THW = np.cos(angle_T) * y_THW - np.sin(angle_T) * x_THW
    return u_THW, v_THW


def _paint_object(
    rng: np.random.Generator, frames_THWC: np.ndarray, track: Track, *, shape: str, bright: bool
) -> None:
    size = frames_THWC.shape[1]
    body_C = _color(rng, (0.85, 1.0), 0.3) if bright else _color(rng, (0.0, 0.08), 0.5)
    marking_C = _color(rng, (0.0, 0.12), 0.5) if bright else _color(rng, (0.65, 0.85), 0.4)
    marking = MARKINGS[str(rng.choice(list(MARKINGS)))]
    light = np.float32(rng.uniform(0, 2 * np.pi))

    u_THW, v_THW = _own_coordinates(track, size=size)
    radius_T = track.radius_T.astype(np.float32)[:, None, None]
    angle_T = track.angle_T.astype(np.float32)[:, None, None]

    # A distance in pixels, clipped at half a pixel on either side, gives the coverage of a pixel.
    inside_THW = np.clip(0.5 - SHAPES[shape](u_THW, v_THW) * (radius_T * size), 0, 1)
    marked_THW = np.clip(0.5 - marking(u_THW, v_THW) * (radius_T * size), 0, 1)
    # The light comes from a fixed side of the scene, whatever the object's angle.
    lit_THW = np.cos(light - angle_T) * u_THW + np.sin(light - angle_T) * v_THW
    shade_THW = 0.85 + 0.15 * np.clip(lit_THW, -1, 1)
    for channel in range(3):
        body, spot = body_C[channel], marking_C[channel]
        color_THW = (body + (spot - body) * marked_THW) * shade_THW
        background_THW = frames_THWC[..., channel]
        background_THW += (color_THW - background_THW) * inside_THW
