"""Choose the frames of a clip by arithmetic on frame numbers, without decoding.

Dense sampling takes T frames, every `sampling_rate`-th at `target_fps` frames per second. "16x4" is
T=16 with rate 4, which covers two seconds at 30 frames per second. Uniform sampling takes one frame
from each of T equal segments of the video.

For a video without a constant frame rate, the "frames" here are the ticks of `VideoReader`. Ticks
are evenly spaced in time, and each one shows one frame.

Legend: N frames of the video, T frames of a clip, V clips. All results are int64 in [0, N-1].
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hiera_video.utils.errors import UserError

SAMPLINGS = ("dense", "uniform")

Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """Settings that choose the frames of a clip.

    num_frames: T, the frames of a clip. sampling_rate: the distance between two frames of a dense
    clip, in frames at `target_fps`. target_fps: the frame rate that `sampling_rate` refers to.
    sampling: "dense" or "uniform"; uniform clips ignore the two rates.

    Raises:
        UserError: `sampling` is neither "dense" nor "uniform".
        ValueError: a number is too small.
    """

    num_frames: int
    sampling_rate: float
    target_fps: float
    sampling: str = "dense"

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise UserError(
                f"DATA.SAMPLING must be one of {', '.join(SAMPLINGS)}, got {self.sampling!r}."
            )
        if self.num_frames < 1:
            raise ValueError(f"num_frames must be at least 1 frame, got {self.num_frames}.")
        if not (self.sampling_rate > 0 and self.target_fps > 0):
            raise ValueError(
                "sampling_rate and target_fps must be above 0, "
                f"got {self.sampling_rate} and {self.target_fps}."
            )

    @property
    def spacing_sec(self) -> float:
        """Seconds between two frames of a dense clip."""
        return self.sampling_rate / self.target_fps

    def rate_of(self, fps: float | None) -> float:
        """Return `fps`, or `target_fps` if it is unknown (None, 0, negative, NaN or infinite)."""
        return fps if fps is not None and math.isfinite(fps) and fps > 0 else self.target_fps


def dense_indices(
    clip: ClipSpec, num_video_frames: int, fps: float | None, *, position: float
) -> Indices:
    """Return a clip of evenly spaced frames [T], ascending; `position` in [0, 1] moves it.

    Spacing: exactly `sampling_rate * fps / target_fps` frames of the video, so that a clip has the
    same duration at any frame rate. 16x4 at 30 fps has a spacing of 4: 60 frames from the first to
    the last.
    (PySlowFast spreads 16 points over 64 frames, ends included: 63 / 15 = 4.2.)

    Rounding: each offset k * spacing is rounded to the nearest frame, halves up. The clip is then
    moved by an integer number of frames. So all clips of a video have the same offsets, no frame is
    off by more than half a frame, and an integer spacing stays exact. (Rounding halves to even
    would turn 0.5, 3.5, 6.5 into 0, 4, 6.)

    Position: 0 starts at the first frame, 1 ends at the last, and 0.5 leaves the same number of
    frames at both ends. If the video is shorter than the clip, the clip starts at the first frame
    and repeats the last. If `fps` is unknown, it is taken to be `target_fps`; see
    `ClipSpec.rate_of`.

    Raises ValueError for a video without frames and for a position outside [0, 1].
    """
    if not 0.0 <= position <= 1.0:
        raise ValueError(f"position must be in [0, 1], got {position}.")
    offsets_T = _dense_offsets(clip, num_video_frames, fps)
    return offsets_T + math.floor(position * _slack(num_video_frames, offsets_T) + 0.5)


def uniform_indices(
    num_video_frames: int,
    *,
    num_frames: int,
    rng: np.random.Generator | None = None,
    offset: float = 0.5,
) -> Indices:
    """Return one frame from each of T equal segments of the video [T], ascending.

    With `rng`, draw the frame of each segment uniformly. Without it, take the frame at the fraction
    `offset` in [0, 1) of each segment. If the video has fewer frames than segments, some repeat.

    Raises ValueError for a video without frames and for an offset outside [0, 1).
    """
    _check(num_video_frames, num_frames)
    if not 0.0 <= offset < 1.0:
        raise ValueError(f"offset must be in [0, 1), got {offset}.")
    fractions_T = rng.random(num_frames) if rng is not None else np.full(num_frames, offset)
    # Multiply before dividing: integers stay exact, and so do the borders of segments.
    indices_T = np.floor((np.arange(num_frames) + fractions_T) * num_video_frames / num_frames)
    return np.minimum(indices_T.astype(np.int64), num_video_frames - 1)


def training_indices(
    clip: ClipSpec, num_video_frames: int, fps: float | None, *, rng: np.random.Generator
) -> Indices:
    """Return a random clip [T]. If it is dense, every start is equally likely.

    Raises ValueError for a video without frames.
    """
    if clip.sampling == "uniform":
        return uniform_indices(num_video_frames, num_frames=clip.num_frames, rng=rng)
    offsets_T = _dense_offsets(clip, num_video_frames, fps)
    return offsets_T + int(rng.integers(_slack(num_video_frames, offsets_T), endpoint=True))


def testing_indices(
    clip: ClipSpec, num_video_frames: int, fps: float | None, *, num_clips: int
) -> Indices:
    """Return the V clips of a test [V,T], the same every time.

    Dense: clips start at evenly spaced positions from the first frame to the last; a single clip
    lies in the middle.
    Uniform: clip v takes the fraction (v + 0.5) / V of every segment.

    Raises ValueError for a video without frames, or if V < 1.
    """
    if num_clips < 1:
        raise ValueError(f"num_clips must be at least 1, got {num_clips}.")
    if clip.sampling == "uniform":
        offsets_V = [(v + 0.5) / num_clips for v in range(num_clips)]
        clips = [
            uniform_indices(num_video_frames, num_frames=clip.num_frames, offset=offset)
            for offset in offsets_V
        ]
    else:
        positions_V = [v / (num_clips - 1) for v in range(num_clips)] if num_clips > 1 else [0.5]
        clips = [
            dense_indices(clip, num_video_frames, fps, position=position)
            for position in positions_V
        ]
    return np.stack(clips)


def _dense_offsets(clip: ClipSpec, num_video_frames: int, fps: float | None) -> Indices:
    """Return the frames [T] of a clip that starts at frame 0; a short video repeats its last."""
    _check(num_video_frames, clip.num_frames)
    spacing = clip.sampling_rate * clip.rate_of(fps) / clip.target_fps
    offsets_T = np.floor(np.arange(clip.num_frames) * spacing + 0.5).astype(np.int64)
    repeated_T: Indices = np.minimum(offsets_T, num_video_frames - 1)
    return repeated_T


def _slack(num_video_frames: int, offsets_T: Indices) -> int:
    """Return the number of frames by which a clip can be moved."""
    return num_video_frames - 1 - int(offsets_T[-1])


def _check(num_video_frames: int, num_frames: int) -> None:
    if num_video_frames < 1 or num_frames < 1:
        raise ValueError(
            "a video and a clip must have at least 1 frame, "
            f"got {num_video_frames} and {num_frames}."
        )
