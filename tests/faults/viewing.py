"""Compare the frames that a backend returns with those of the ffmpeg command.

Legend: N frames, T ticks, H height, W width, 3 RGB.
"""

import traceback
from typing import Any

import numpy as np

from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.workers.process import Job

# Largest mean difference (of 255 levels) of two pictures that differ only in colour conversion.
SAME = 6.0
# Files round the time of a frame, some to a hundredth of a second.
_GRACE_SEC = 0.011
_RATE_TOLERANCE = 0.01


def view(task: tuple[str, str, str], job: Job) -> dict[str, str]:
    """Return the `outcome` of a file for a backend and a `note`. Called in a worker.

    task: the file, the backend, and an npz file with what ffmpeg shows: `frames_NHW3`,
    `times_N` in seconds, `fps` (0: variable), `display_HW`.
    """
    path, backend, reference = task
    job.begin(0)
    with np.load(reference) as content:
        right = dict(content)
    try:
        with open_video(path, backend) as reader:
            outcome, note = judge(reader, right)
    except DecodeError as error:
        return {"outcome": "refused", "note": error.cause}
    except Exception:
        return {"outcome": "bug", "note": traceback.format_exc()}
    return {"outcome": outcome, "note": note}


def judge(reader: Any, right: dict[str, np.ndarray]) -> tuple[str, str]:
    """Return the outcome of an opened video, "right" or its first fault, and a note."""
    right_NHWC = right["frames_NHW3"]
    num_frames = len(right_NHWC)
    if reader.num_frames != num_frames:
        return "count", f"{reader.num_frames} frames, ffmpeg: {num_frames}"
    frames_NHWC = reader.frames_at(np.arange(num_frames))
    if frames_NHWC.shape[1:3] not in (right_NHWC.shape[1:3], tuple(right["display_HW"])):
        return "shape", f"{frames_NHWC.shape[1:3]}, ffmpeg: {right_NHWC.shape[1:3]}"
    if order := _wrong_frame(frames_NHWC, right_NHWC):
        return order
    rng = np.random.default_rng(0)
    for number in (num_frames - 1, 0, *rng.integers(num_frames, size=6).tolist()):
        alone_HWC = reader.frames_at([number])[0]
        if not np.array_equal(alone_HWC, frames_NHWC[number]):
            return "frames", f"frame {number} alone is another than in a row"
    return _wrong_rate(reader, right) or ("right", "")


def _wrong_frame(frames_NHWC: np.ndarray, right_NHWC: np.ndarray) -> tuple[str, str] | None:
    """Describe the first frame that is not ffmpeg's, or has other colours."""
    rows_N, columns_N = (
        (np.arange(right) * found // right)
        for right, found in zip(right_NHWC.shape[1:3], frames_NHWC.shape[1:3], strict=True)
    )
    worst = 0.0
    # A large picture is looked at in every few pixels: what is compared are 30 x 30 pictures.
    sparse = slice(None, None, max(1, min(right_NHWC.shape[1:3]) // 64))
    rows_N, columns_N, right_NHWC = rows_N[sparse], columns_N[sparse], right_NHWC[:, sparse, sparse]
    for number, frame_HWC in enumerate(frames_NHWC):
        same_size_HWC = frame_HWC[rows_N][:, columns_N].astype(np.int16)
        distance_N = np.abs(same_size_HWC - right_NHWC).mean(axis=(1, 2, 3))
        nearest = int(distance_N.argmin())
        if distance_N[number] > distance_N[nearest]:
            return "frames", f"frame {number} is nearest to {nearest}"
        worst = max(worst, float(distance_N[number]))
    if worst > SAME:
        return "colours", f"{worst:.1f} levels off"
    return None


def _wrong_rate(reader: Any, right: dict[str, np.ndarray]) -> tuple[str, str] | None:
    """Describe how rate and times differ from those of the file."""
    fps, times_N = float(right["fps"]), right["times_N"]
    if fps:
        if abs(reader.fps - fps) > _RATE_TOLERANCE * fps:
            return "rate", f"{reader.fps:.3f} fps, right: {fps:.3f}"
        if reader.num_ticks == reader.num_frames:
            return None  # else the file lacks frames, and its times tell where
    ticks_T = np.arange(reader.num_ticks)
    shown_T = reader.ticks_to_frames(ticks_T)
    now_T = ticks_T / reader.fps
    starts_N = times_N - times_N[0]
    ends_N = np.append(starts_N[1:], np.inf)
    late_T = np.maximum(starts_N[shown_T] - now_T, now_T - ends_N[shown_T])
    if late_T.max() > _GRACE_SEC:
        return "rate", f"a frame is shown {late_T.max():.3f} s off its time"
    if abs(now_T[-1] - starts_N[-1]) > 1 / reader.fps + _GRACE_SEC:
        return "rate", f"lasts {now_T[-1]:.3f} s, right: {starts_N[-1]:.3f} s"
    return None
