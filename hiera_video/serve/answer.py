"""What the model says of an uploaded file: decoded in a process that may be killed, then scored.

Shape suffixes: V windows, T frames of one, N distinct frames, S side of a crop, C colours (RGB),
K classes, L classes that are shown.
"""

import threading
import time
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from hiera_video.data.build import clip_spec
from hiera_video.data.decoders import Decoding
from hiera_video.data.workers.pool import Lost, WorkerError, WorkerPool
from hiera_video.inference.predictor import Predictor
from hiera_video.inference.windows import Grid, Window, make_window, window_scores
from hiera_video.serve.read import ReadWindows, Refused, WindowReader

_POLL_SEC = 0.1
# Windows that are scored between two looks at whether anybody still waits.
_WINDOWS_AT_ONCE = 4


class RefusalError(Exception):
    """Why a request has no answer: an HTTP status and a sentence for the person."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def stopped() -> RefusalError:
    """Return the refusal of what comes while the server ends."""
    return RefusalError(503, "The server is being stopped.")


class CancelledError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a video shows: `scores_K`, the mean over its windows, and the windows.

    `every_sec` is the time from one window to the next; with `is_spread` it is longer than usual,
    because the video is.
    """

    scores_K: np.ndarray
    windows: tuple[Window, ...]
    duration_sec: float
    every_sec: float
    is_spread: bool
    decode_sec: float
    model_sec: float


class Work:
    """One piece of work as others see it: how far it is, and that nobody wants it any more.

    `done` of `total` windows are scored; `total` is 0 until the video is decoded. It is not wanted
    once it, or all the server's work (`all_stopped`), is stopped.
    """

    def __init__(self, all_stopped: threading.Event) -> None:
        self.done = self.total = 0
        self._all_stopped = all_stopped
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Say that nobody wants it."""
        self._stopped.set()

    def is_stopped(self) -> bool:
        """Say whether nobody wants it."""
        return self._stopped.is_set() or self._all_stopped.is_set()


class Analyst:
    """Answers one file at a time, in whatever single thread calls it.

    Args:
        predictor: the model.
        grid: where windows lie.
        least_windows, max_windows: how many a video gets; see `window_starts`.
        deadline_sec: the longest that decoding a file may take; then its process is killed.
    """

    def __init__(
        self,
        predictor: Predictor,
        grid: Grid,
        *,
        least_windows: int = 1,
        max_windows: int,
        deadline_sec: float,
    ) -> None:
        self.predictor = predictor
        self.grid = grid
        self._deadline_sec = deadline_sec
        data = predictor.cfg.DATA
        reader = WindowReader(
            predictor.transform(num_crops=1),
            grid,
            least_windows=min(least_windows, max_windows),
            max_windows=max_windows,
            # One decoder for the check and for the frames: two may disagree on what a file is.
            backend=Decoding(
                "pyav" if data.DECODING_BACKEND == "auto" else data.DECODING_BACKEND,
                data.SQUARE_PIXELS,
            ),
            clip=clip_spec(predictor.cfg),
        )
        self._pool = WorkerPool(reader, num_workers=1, deadline_sec=deadline_sec)
        self._numbers = count()

    def warm_up(self) -> None:
        """Start the process and run the model once, so that the first answer is not a slow one.

        Raises:
            UserError: the model's outputs are not finite.
        """
        side, frames = self.predictor.transform(num_crops=1).crop_size, self.grid.num_frames
        self._pool.submit(next(self._numbers), "")
        window_scores(self.predictor, np.zeros((1, frames, side, side, 3), np.uint8))
        self._pool.next()

    def analyse(self, path: str, work: Work) -> Answer:
        """Return what the video file shows, and tell `work` how far it is.

        Raises:
            RefusalError: it does not decode, or not in time.
            CancelledError: the work is stopped.
        """
        if work.is_stopped():  # while others were answered
            raise CancelledError
        began = time.monotonic()
        read = self._read(path, work)
        decoded = time.monotonic()
        batch = _WINDOWS_AT_ONCE * (4 if self.predictor.device.type == "cuda" else 1)
        scores = []
        work.total = len(read.starts_V)
        for first in range(0, work.total, batch):
            if work.is_stopped():
                raise CancelledError
            work.done = first
            frames_VT = read.frames_VT[first : first + batch]
            scores.append(window_scores(self.predictor, read.crops_NSSC[frames_VT]))
        scores_VK = np.concatenate(scores)
        windows = tuple(
            make_window(self.predictor, self.grid, start, scores_K, read.duration_sec, "")
            for start, scores_K in zip(read.starts_V, scores_VK, strict=True)
        )
        stride = read.starts_V[1] - read.starts_V[0] if len(windows) > 1 else self.grid.stride
        return Answer(
            scores_VK.mean(0),
            windows,
            duration_sec=read.duration_sec,
            every_sec=stride * self.grid.spacing_sec,
            is_spread=stride > self.grid.stride,
            decode_sec=decoded - began,
            model_sec=time.monotonic() - decoded,
        )

    def close(self) -> None:
        """End the decoding process."""
        self._pool.close()

    def __enter__(self) -> "Analyst":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, path: str, work: Work) -> ReadWindows:
        number = next(self._numbers)
        self._pool.submit(number, path)
        while True:
            try:
                found = self._pool.next(timeout_sec=_POLL_SEC)
            except WorkerError:
                self._pool.cancel()
                raise
            if work.is_stopped():
                self._pool.cancel()
                self._pool.close()  # whatever it is at; another process comes with the next file
                raise CancelledError
            if found is not None and found.task_id == number:
                break
        if isinstance(found, Lost):
            raise RefusalError(422, self._lost(found))
        if isinstance(found.value, Refused):
            raise RefusalError(422, found.value.reason)
        assert isinstance(found.value, ReadWindows)
        return found.value

    def _lost(self, lost: Lost) -> str:
        if lost.hung:
            return (
                f"This file took longer than {self._deadline_sec:g} s to decode and was given up: "
                "it is damaged, or too long or large for this server."
            )
        return "This file makes the decoder crash: it is damaged."


class Turnstile:
    """Counts who is inside and lets no more in than `limit`; for one thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0

    def enter(self) -> None:
        """Go in.

        Raises:
            RefusalError: it is full.
        """
        if self._inside >= self._limit:
            raise RefusalError(503, "The server is busy with other videos. Try again in a while.")
        self._inside += 1

    def leave(self) -> None:
        """Go out."""
        self._inside -= 1


def as_json(answer: Answer, predictor: Predictor, *, top_k: int) -> dict[str, Any]:
    """Return an answer as plain types; see docs/serve.md."""
    tops = [window.prediction.top(top_k) for window in answer.windows]
    overall = predictor.prediction(answer.scores_K).top(top_k)
    best = [one.label for one in overall]
    others = sorted({one.label for top in tops for one in top} - set(best))
    shown_L = best + others
    note = ""
    if answer.is_spread:
        note = (
            f"The video is long: {len(answer.windows)} windows were looked at, one every "
            f"{answer.every_sec:.3g} s."
        )
    return {
        "duration_sec": round(answer.duration_sec, 3),
        "every_sec": round(answer.every_sec, 3),
        "note": note,
        "predictions": plain(overall),
        "windows": [
            {
                "start_sec": round(window.start_sec, 3),
                "end_sec": round(window.end_sec, 3),
                "predictions": plain(top),
            }
            for window, top in zip(answer.windows, tops, strict=True)
        ],
        "evidence": {
            "labels": shown_L,
            "names": [predictor.class_names[label] for label in shown_L],
            "scores": [
                [round(float(window.prediction.scores[label]), 4) for label in shown_L]
                for window in answer.windows
            ],
        },
        "timing": {
            "decode_sec": round(answer.decode_sec, 3),
            "model_sec": round(answer.model_sec, 3),
        },
    }


def plain(top: Any) -> list[dict[str, Any]]:
    """Return ClassScores as plain types."""
    return [{**one._asdict(), "score": round(one.score, 6)} for one in top]
