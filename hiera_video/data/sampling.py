"""Which frames of a video make a clip: arithmetic on whole numbers, nothing is decoded here.

Dense: T frames, every `sampling_rate`-th at the rate `target_fps` ("16x4" is T=16, rate 4; at
30 frames per second, two seconds). Uniform: one frame of each of T equal segments of the video.

A video whose frames do not come at a constant rate is laid on one first: its "frames" here are the
ticks of `VideoReader`, each of which shows one frame.

Legend: N frames of the video, T frames of a clip, V clips. All results are int64 in [0, N-1].
"""

import math

import numpy as np

from hiera_video.utils.errors import UserError

SAMPLINGS = ("dense", "uniform")


def dense_indices(
    num_video_frames: int,
    fps: float | None,
    *,
    num_frames: int,
    sampling_rate: float,
    target_fps: float,
    position: float,
) -> np.ndarray:
    """Return a clip of evenly spaced frames [T], ascending; `position` in [0, 1] slides it.

    Spacing: exactly `sampling_rate * fps / target_fps` frames of the video, so that a clip lasts
    as long whatever the video's rate; 16x4 at 30 fps is 4, from first to last 60 frames.
    (PySlowFast spreads 16 points over 64 frames, ends included: 63 / 15 = 4.2.)

    Rounding: each offset k * spacing goes to the nearest frame, halves up, before the clip is slid
    by a whole number of frames; so all clips of a video have the same offsets, none is more than
    half a frame off, and a whole spacing stays exact. (Halves to even would make 0.5, 3.5, 6.5
    into 0, 4, 6.)

    Position: 0 begins with the first frame, 1 ends with the last, 0.5 leaves as much at both ends.
    A video shorter than the clip: begins with the first frame and repeats the last. `fps` unknown
    (None, 0, negative, NaN, infinite): taken to be `target_fps`.

    Raises ValueError for a video without frames and for a position outside [0, 1].
    """
    if not 0.0 <= position <= 1.0:
        raise ValueError(f"position must be in [0, 1], got {position}.")
    offsets_T = _dense_offsets(
        num_video_frames,
        fps,
        num_frames=num_frames,
        sampling_rate=sampling_rate,
        target_fps=target_fps,
    )
    return offsets_T + math.floor(position * _slack(num_video_frames, offsets_T) + 0.5)


def uniform_indices(
    num_video_frames: int,
    *,
    num_frames: int,
    rng: np.random.Generator | None = None,
    offset: float = 0.5,
) -> np.ndarray:
    """Return one frame of each of T equal segments of the video [T], ascending.

    With `rng` it is drawn anew in each segment, uniformly; without, it lies at the fraction
    `offset` in [0, 1) of every segment. With fewer frames than segments some are repeated.

    Raises ValueError for a video without frames and for an offset outside [0, 1).
    """
    _check(num_video_frames, num_frames)
    if not 0.0 <= offset < 1.0:
        raise ValueError(f"offset must be in [0, 1), got {offset}.")
    fractions_T = rng.random(num_frames) if rng is not None else np.full(num_frames, offset)
    # The product first: it is exact for whole numbers, so that segment borders are too.
    indices_T = np.floor((np.arange(num_frames) + fractions_T) * num_video_frames / num_frames)
    return np.minimum(indices_T.astype(np.int64), num_video_frames - 1)


def training_indices(
    sampling: str,
    num_video_frames: int,
    fps: float | None,
    *,
    num_frames: int,
    sampling_rate: float,
    target_fps: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a random clip [T]: dense, with every start equally likely, or uniform.

    Raises UserError if `sampling` is neither "dense" nor "uniform".
    """
    _check_sampling(sampling)
    if sampling == "uniform":
        return uniform_indices(num_video_frames, num_frames=num_frames, rng=rng)
    offsets_T = _dense_offsets(
        num_video_frames,
        fps,
        num_frames=num_frames,
        sampling_rate=sampling_rate,
        target_fps=target_fps,
    )
    return offsets_T + rng.integers(_slack(num_video_frames, offsets_T), endpoint=True)


def testing_indices(
    sampling: str,
    num_video_frames: int,
    fps: float | None,
    *,
    num_frames: int,
    sampling_rate: float,
    target_fps: float,
    num_clips: int,
) -> np.ndarray:
    """Return the V clips of a test [V,T], the same every time.

    Dense: at evenly spread positions from the first frame to the last (one clip: the middle).
    Uniform: clip v takes the fraction (v + 0.5) / V of every segment.

    Raises UserError if `sampling` is neither "dense" nor "uniform", ValueError if V < 1.
    """
    _check_sampling(sampling)
    if num_clips < 1:
        raise ValueError(f"num_clips must be at least 1, got {num_clips}.")
    if sampling == "uniform":
        offsets_V = [(clip + 0.5) / num_clips for clip in range(num_clips)]
        clips = [
            uniform_indices(num_video_frames, num_frames=num_frames, offset=offset)
            for offset in offsets_V
        ]
    else:
        positions_V = (
            [clip / (num_clips - 1) for clip in range(num_clips)] if num_clips > 1 else [0.5]
        )
        clips = [
            dense_indices(
                num_video_frames,
                fps,
                num_frames=num_frames,
                sampling_rate=sampling_rate,
                target_fps=target_fps,
                position=position,
            )
            for position in positions_V
        ]
    return np.stack(clips)


def _dense_offsets(
    num_video_frames: int,
    fps: float | None,
    *,
    num_frames: int,
    sampling_rate: float,
    target_fps: float,
) -> np.ndarray:
    """Return the frames of a clip that begins at frame 0 [T], the last frame repeated at need."""
    _check(num_video_frames, num_frames)
    if not (sampling_rate > 0 and target_fps > 0):
        raise ValueError(
            f"sampling_rate and target_fps must be above 0, got {sampling_rate} and {target_fps}."
        )
    known_fps = fps if fps is not None and math.isfinite(fps) and fps > 0 else target_fps
    spacing = sampling_rate * known_fps / target_fps
    offsets_T = np.floor(np.arange(num_frames) * spacing + 0.5)
    return np.minimum(offsets_T, num_video_frames - 1).astype(np.int64)


def _slack(num_video_frames: int, offsets_T: np.ndarray) -> int:
    """Return by how many frames a clip can be slid."""
    return num_video_frames - 1 - int(offsets_T[-1])


def _check(num_video_frames: int, num_frames: int) -> None:
    if num_video_frames < 1 or num_frames < 1:
        raise ValueError(
            "a video and a clip must have at least 1 frame, "
            f"got {num_video_frames} and {num_frames}."
        )


def _check_sampling(sampling: str) -> None:
    if sampling not in SAMPLINGS:
        raise UserError(f"DATA.SAMPLING must be one of {', '.join(SAMPLINGS)}, got {sampling!r}.")
