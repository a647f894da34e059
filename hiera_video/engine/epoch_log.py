"""What a training epoch logs while it runs: lines, figures, scalars, and where its time goes."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from hiera_video.engine.run_log import RunLog
from hiera_video.utils.machine import clock

T = TypeVar("T")


class Stopwatch:
    """Times an epoch's loop and, apart, how long it waited for data.

    Seconds are wall-clock time since the last `restart`.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start counting from zero."""
        self._start = time.perf_counter()
        self._wait_sec = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield what `batches` yields, counting the time until each comes as waiting."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self._wait_sec += time.perf_counter() - asked
            yield batch

    @property
    def elapsed_sec(self) -> float:
        """Seconds since the last restart."""
        return time.perf_counter() - self._start

    @property
    def wait_share(self) -> float:
        """The share of that time spent waiting for data, in [0, 1]."""
        return self._wait_sec / max(self.elapsed_sec, 1e-9)


class Mean:
    """A weighted running mean."""

    def __init__(self) -> None:
        self.total = 0.0
        self.weight = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Take a value."""
        self.total += value * weight
        self.weight += weight

    @property
    def value(self) -> float:
        """The mean so far; NaN before the first value."""
        return self.total / self.weight if self.weight else float("nan")


class EpochLog:
    """The lines, scalars and progress bar of one training epoch.

    Args:
        log: where they go.
        device: whose memory is reported.
        epoch: its number, from 0.
        num_epochs: of the run (SOLVER.MAX_EPOCH).
        num_iterations: of the epoch.
        first: the iteration that it starts with, above 0 if the run resumed inside the epoch.
        period: every so many iterations figures are logged (LOG_PERIOD).
    """

    def __init__(
        self,
        log: RunLog,
        device: torch.device,
        *,
        epoch: int,
        num_epochs: int,
        num_iterations: int,
        first: int,
        period: int,
    ) -> None:
        self._log = log
        self._device = device
        self._epoch = epoch
        self._num_epochs = num_epochs
        self._num_iterations = num_iterations
        self._first = first
        self._period = period
        self._label = f"{epoch + 1}/{num_epochs}"
        self._loss, self._clips, self._num_failures = Mean(), 0, 0
        self._lr: float | None = None  # of the last iteration
        self.watch = Stopwatch()
        self._bar = log.progress(num_iterations, f"epoch {self._label}")
        self._bar.update(first)

    def where(self, iteration: int) -> str:
        """Return the name of an iteration in messages."""
        return f"epoch {self._label}, iteration {iteration + 1}"

    def failures(self, number: int, new_reasons: Sequence[str]) -> None:
        """Count videos that did not decode, and log the reasons that were not logged before."""
        self._num_failures += number
        for reason in new_reasons:
            self._log.warning(f"{reason} Another video took its place.")

    def iteration(
        self, iteration: int, loss: float, *, lr: float, grad_norm: float | None, num_clips: int
    ) -> None:
        """Count one iteration, and log its figures every LOG_PERIOD iterations."""
        if math.isfinite(loss):
            self._loss.add(loss, num_clips)
        self._clips += num_clips
        self._lr = lr
        self._bar.set_postfix_str(f"loss {loss:.3f}, data wait {self.watch.wait_share:.0%}")
        self._bar.update()
        if (iteration + 1) % self._period:
            return
        sec_per_iter = self.watch.elapsed_sec / (iteration + 1 - self._first)
        iterations_left = (self._num_epochs - self._epoch) * self._num_iterations - iteration - 1
        eta = clock(sec_per_iter * iterations_left)
        where = f"{iteration + 1}/{self._num_iterations}"
        if self._bar.disable:
            self._log.line(
                f"epoch {self._label} iteration {where} loss {loss:.4f} lr {lr:.3g} "
                f"data wait {self.watch.wait_share:.0%} eta {eta}"
            )
        self._log.stats(
            "train_iter",
            epoch=self._label,
            iter=where,
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            sec_per_iter=sec_per_iter,
            clips_per_sec=self._clips / self.watch.elapsed_sec,
            data_wait_share=self.watch.wait_share,
            gpu_memory_gib=gpu_memory_gib(self._device),
            eta=eta,
        )
        step = self._epoch * self._num_iterations + iteration + 1
        norm = {} if grad_norm is None else {"train__grad_norm": grad_norm}
        self._log.scalars(step, train__loss=loss, train__lr=lr, **norm)

    def end(self, *, num_skipped: int) -> None:
        """Close the bar and log the epoch, in which `num_skipped` steps were skipped."""
        self._bar.close()
        self._log.line(
            f"epoch {self._label} done: loss {self._loss.value:.4f}, "
            f"{self._clips / self.watch.elapsed_sec:.1f} clips/s, "
            f"data wait {self.watch.wait_share:.0%}, {clock(self.watch.elapsed_sec)}"
        )
        self._log.stats(
            "train_epoch",
            epoch=self._label,
            loss=self._loss.value,
            lr=self._lr,
            epoch_sec=self.watch.elapsed_sec,
            clips_per_sec=self._clips / self.watch.elapsed_sec,
            data_wait_share=self.watch.wait_share,
            bad_videos=self._num_failures,
            skipped_steps=num_skipped,
            gpu_memory_gib=gpu_memory_gib(self._device),
        )


def gpu_memory_gib(device: torch.device) -> float:
    """Return the peak GPU memory in use so far, in GiB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
