"""Predict what a video shows over time: slide one clip along a file or a stream.

The frames of all windows lie on one grid, spaced as in a clip, so that each frame is prepared once
for all windows that contain it. Every window is one centre crop.

Shape suffixes: G frames on the grid, V windows, T frames of one, S crops (1), H height, W width,
C colours (RGB).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from hiera_video.config import Config
from hiera_video.data.build import clip_spec, decoding
from hiera_video.data.decoders import open_video
from hiera_video.data.transforms.pipeline import TestTransform
from hiera_video.inference.predictor import Prediction, Predictor
from hiera_video.inference.stream import StreamFrame
from hiera_video.utils.errors import UserError

# Windows of a file that are decoded together; their frames are in memory at the same time.
_WINDOWS_AT_ONCE = 8
# Tolerance for time stamps that rounding has moved past a grid time.
_GRACE_SEC = 0.002


@dataclass(frozen=True, slots=True)
class Window:
    """The prediction for a part of a video; times are in seconds from its first frame."""

    start_sec: float
    end_sec: float
    prediction: Prediction

    @property
    def middle_sec(self) -> float:
        """The middle of the window."""
        return (self.start_sec + self.end_sec) / 2


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid of frames `spacing_sec` apart: windows of `num_frames`, one every `stride` frames."""

    num_frames: int
    spacing_sec: float
    stride: int

    @property
    def window_sec(self) -> float:
        """The length of a window, from its first frame to the end of its last."""
        return self.num_frames * self.spacing_sec


def make_grid(
    cfg: Config, *, every_sec: float | None = None, window_sec: float | None = None
) -> Grid:
    """Return the grid for a config: windows as long as its clips, overlapping by half.

    `every_sec` is the time from one window to the next. If clips span a whole video (DATA.SAMPLING
    uniform), a window is `window_sec` long, by default 4 s, the average length of the videos of
    Something-Something.

    Raises:
        UserError: a time that is not above 0, or `window_sec` where the clips have a length.
    """
    for name, value in (("every_sec", every_sec), ("window_sec", window_sec)):
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"{name} must be above 0 seconds, got {value:g}. Try 1.")
    clip = clip_spec(cfg)
    if clip.sampling == "dense":
        spacing_sec = clip.spacing_sec
        if window_sec is not None:
            raise UserError(
                "window_sec must be left out where DATA.SAMPLING is dense: a window is a clip of "
                f"{clip.num_frames * spacing_sec:g} s, got {window_sec:g}."
            )
    else:
        spacing_sec = (window_sec or 4.0) / clip.num_frames
    stride = clip.num_frames // 2 if every_sec is None else round(every_sec / spacing_sec)
    return Grid(clip.num_frames, spacing_sec, max(stride, 1))


def file_windows(predictor: Predictor, path: str, grid: Grid) -> Iterator[Window]:
    """Yield the windows of a video file in order; a video shorter than a window has one.

    Raises:
        DecodeError: the video does not decode.
    """
    with open_video(path, decoding(predictor.cfg)) as reader:
        fps = clip_spec(predictor.cfg).rate_of(reader.fps)
        ticks_G = grid_ticks(reader.num_ticks, fps, grid)
        starts = range(0, max(len(ticks_G) - grid.num_frames, 0) + 1, grid.stride)
        for first in range(0, len(starts), _WINDOWS_AT_ONCE):
            some = starts[first : first + _WINDOWS_AT_ONCE]
            places_VT = np.array(some)[:, None] + np.arange(grid.num_frames)
            ticks_VT = ticks_G[np.minimum(places_VT, len(ticks_G) - 1)]
            wanted, clips = np.unique(reader.ticks_to_frames(ticks_VT), return_inverse=True)
            crops_NHWC = centre_crops(predictor.transform(num_crops=1), reader.frames_at(wanted))
            scores_VK = window_scores(predictor, crops_NHWC[clips.reshape(ticks_VT.shape)])
            for start, scores_K in zip(some, scores_VK, strict=True):
                yield make_window(predictor, grid, start, scores_K, reader.num_ticks / fps, path)


def stream_windows(
    predictor: Predictor, frames: Iterable[StreamFrame], grid: Grid
) -> Iterator[Window]:
    """Yield the windows of a stream, each as soon as its last frame has arrived.

    A stream that ends before its first window is full has one window. A late frame is kept for
    later windows, but no window ends with it.
    """
    transform = predictor.transform(num_crops=1)
    kept: deque[np.ndarray] = deque(maxlen=grid.num_frames)
    taken, said, end_sec = 0, False, 0.0
    for place, frame in _on_grid(frames, grid):
        kept.append(centre_crops(transform, frame.picture()[None])[0])
        taken, end_sec = place + 1, frame.time_sec
        full = taken - grid.num_frames
        if full >= 0 and full % grid.stride == 0 and not frame.is_late:
            scores_VK = window_scores(predictor, np.stack(kept)[None])
            yield make_window(predictor, grid, full, scores_VK[0], taken * grid.spacing_sec, "")
            said = True
    if taken and not said:
        while len(kept) < grid.num_frames:
            kept.append(kept[-1])
        scores_VK = window_scores(predictor, np.stack(kept)[None])
        start = max(taken - grid.num_frames, 0)
        yield make_window(predictor, grid, start, scores_VK[0], end_sec, "")


def grid_ticks(num_ticks: int, fps: float, grid: Grid) -> np.ndarray:
    """Return the tick of every grid time in the video, `[G]`, halves rounded up as for a clip."""
    number = int((num_ticks - 1) / (grid.spacing_sec * fps) + 1e-6) + 1
    ticks_G = np.floor(np.arange(number) * (grid.spacing_sec * fps) + 0.5).astype(np.int64)
    return np.minimum(ticks_G, num_ticks - 1)


def _on_grid(frames: Iterable[StreamFrame], grid: Grid) -> Iterator[tuple[int, StreamFrame]]:
    """Yield, for each grid time, its index and the frame that is on screen at that time."""
    place, last, start_sec = 0, None, 0.0
    for frame in frames:
        if last is None:
            start_sec = frame.time_sec
        # The frame before this one is on screen until this one comes.
        while last is not None and (
            start_sec + place * grid.spacing_sec < frame.time_sec - _GRACE_SEC
        ):
            yield place, last
            place += 1
        last = frame
    if last is not None and start_sec + place * grid.spacing_sec <= last.time_sec + _GRACE_SEC:
        yield place, last


def centre_crops(transform: TestTransform, frames_NHWC: np.ndarray) -> np.ndarray:
    """Return the centre crops of frames as a test makes them, uint8 `[N, S, S, 3]`."""
    side = transform.crop_size
    crops = torch.empty((1, 1, len(frames_NHWC), side, side, 3), dtype=torch.uint8)
    transform.write(frames_NHWC, np.arange(len(frames_NHWC))[None], crops)
    return crops[0, 0].numpy()


def window_scores(predictor: Predictor, pixels_VTHWC: np.ndarray) -> np.ndarray:
    """Return the probabilities of windows of uint8 crops, float32 `[V, K]`; raises UserError."""
    finish = predictor.transform(num_crops=1).finish
    parts = torch.from_numpy(pixels_VTHWC).split(predictor.cfg.TEST.BATCH_SIZE)
    return np.concatenate([predictor.probabilities(finish(part)) for part in parts])


def make_window(
    predictor: Predictor, grid: Grid, start: int, scores_K: np.ndarray, end_sec: float, path: str
) -> Window:
    """Return the window that begins at grid frame `start` of a video that ends at `end_sec`."""
    start_sec = start * grid.spacing_sec
    return Window(
        start_sec, min(start_sec + grid.window_sec, end_sec), predictor.prediction(scores_K, path)
    )
