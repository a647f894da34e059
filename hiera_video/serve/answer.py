"""Predict the classes of an uploaded file: decode it in a separate process, then score it.

Shape suffixes: V windows, T frames of a window, N distinct frames, S side of a crop, C colours
(RGB), K classes, L classes that are shown.
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
# Number of windows scored between two checks whether the client still waits.
_WINDOWS_AT_ONCE = 4


class RefusalError(Exception):
    """A request that is refused, with an HTTP status and a sentence for the user."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def stopped() -> RefusalError:
    """Return the refusal of a request that comes while the server shuts down."""
    return RefusalError(503, "The server is being stopped.")


class CancelledError(Exception):
    """The client no longer waits for the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The scores of a video: `scores_K`, the mean over its windows, and the windows.

    `every_sec` is the time from one window to the next. `is_spread` says that it is longer than
    the grid's, because the video is long.
    """

    scores_K: np.ndarray
    windows: tuple[Window, ...]
    duration_sec: float
    every_sec: float
    is_spread: bool
    decode_sec: float
    model_sec: float


class Work:
    """The progress of one request, and a flag that cancels it.

    `done` of `total` windows are scored; `total` is 0 until the video is decoded. `all_stopped`
    cancels all requests of the server.
    """

    def __init__(self, all_stopped: threading.Event) -> None:
        self.done = self.total = 0
        self._all_stopped = all_stopped
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Cancel the work."""
        self._stopped.set()

    def is_stopped(self) -> bool:
        """Return whether the work is cancelled."""
        return self._stopped.is_set() or self._all_stopped.is_set()


class Analyst:
    """Analyses one file at a time. Only one thread at a time may call it.

    Args:
        predictor: the model.
        grid: positions of the windows.
        least_windows, max_windows: bounds for the number of windows; see `window_starts`.
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
            # One decoder checks the file and reads its frames: two might disagree on its format.
            backend=Decoding(
                "pyav" if data.DECODING_BACKEND == "auto" else data.DECODING_BACKEND,
                data.SQUARE_PIXELS,
            ),
            clip=clip_spec(predictor.cfg),
        )
        self._pool = WorkerPool(reader, num_workers=1, deadline_sec=deadline_sec)
        self._numbers = count()

    def warm_up(self) -> None:
        """Start the process and run the model once, so that the first answer is not slow.

        Raises:
            UserError: the model's outputs are not finite.
        """
        side, frames = self.predictor.transform(num_crops=1).crop_size, self.grid.num_frames
        self._pool.submit(next(self._numbers), "")
        window_scores(self.predictor, np.zeros((1, frames, side, side, 3), np.uint8))
        self._pool.next()

    def analyse(self, path: str, work: Work) -> Answer:
        """Score the windows of a video file, updating the progress in `work`.

        Raises:
            RefusalError: the file does not decode, or not in time.
            CancelledError: the work is cancelled.
        """
        if work.is_stopped():  # cancelled in the queue
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
                self._pool.close()  # kills the process; the next file starts a new one
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
                f"Decoding this file took longer than {self._deadline_sec:g} s and was stopped: "
                "the file is damaged, or too long or too large for this server."
            )
        return "This file makes the decoder crash: it is damaged."


class Turnstile:
    """Counts requests in progress and admits at most `limit`; not thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0

    def enter(self) -> None:
        """Admit a request.

        Raises:
            RefusalError: `limit` requests are in progress.
        """
        if self._inside >= self._limit:
            raise RefusalError(503, "The server is busy with other videos. Try again in a while.")
        self._inside += 1

    def leave(self) -> None:
        """Count a request as finished."""
        self._inside -= 1


def as_json(answer: Answer, predictor: Predictor, *, top_k: int) -> dict[str, Any]:
    """Convert an answer to plain types; docs/serve.md describes the keys."""
    tops = [window.prediction.top(top_k) for window in answer.windows]
    overall = predictor.prediction(answer.scores_K).top(top_k)
    best = [one.label for one in overall]
    others = sorted({one.label for top in tops for one in top} - set(best))
    shown_L = best + others
    note = ""
    if answer.is_spread:
        note = (
            f"The video is long: the model saw {len(answer.windows)} windows, one every "
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
    """Convert ClassScores to plain types."""
    return [{**one._asdict(), "score": round(one.score, 6)} for one in top]
