"""What a training epoch says while it runs, and where its time goes."""

import math

import torch

from hiera_video.data.health import Tried
from hiera_video.engine.meters import Mean, Stopwatch
from hiera_video.engine.train_run import TrainRun
from hiera_video.utils.machine import clock


class EpochLog:
    """The lines, scalars and progress bar of one training epoch, from iteration `first` on."""

    def __init__(self, run: TrainRun, epoch: int, first: int = 0) -> None:
        self.run = run
        self.epoch = epoch
        self.first = first
        self.num_iterations = len(run.train_loader)
        self.label = f"{epoch + 1}/{run.cfg.SOLVER.MAX_EPOCH}"
        self.loss, self.clips, self.num_failures = Mean(), 0, 0
        self.lr: float | None = None  # of the last iteration
        self.skipped_before = run.guard.num_skipped
        self.watch = Stopwatch()
        self.bar = run.log.progress(self.num_iterations, f"epoch {self.label}")
        self.bar.update(first)

    def where(self, iteration: int) -> str:
        """Return what messages call an iteration."""
        return f"epoch {self.label}, iteration {iteration + 1}"

    def failures(self, tried: Tried) -> None:
        """Name the videos that did not decode and were replaced, each once in a run."""
        self.num_failures += len(tried.failures)
        for reason in self.run.bad_videos.add(tried):
            self.run.log.warning(f"{reason} Another video took its place.")

    def iteration(
        self, iteration: int, loss: float, *, lr: float, grad_norm: float | None, num_clips: int
    ) -> None:
        """Take one iteration's figures; log them every LOG_PERIOD."""
        if math.isfinite(loss):
            self.loss.add(loss, num_clips)
        self.clips += num_clips
        self.lr = lr
        self.bar.set_postfix_str(f"loss {loss:.3f}, data wait {self.watch.wait_share:.0%}")
        self.bar.update()
        if (iteration + 1) % self.run.cfg.LOG_PERIOD:
            return
        sec_per_iter = self.watch.elapsed_sec / (iteration + 1 - self.first)
        epochs_left = self.run.cfg.SOLVER.MAX_EPOCH - self.epoch
        eta = clock(sec_per_iter * (epochs_left * self.num_iterations - iteration - 1))
        where = f"{iteration + 1}/{self.num_iterations}"
        if self.bar.disable:
            self.run.log.line(
                f"epoch {self.label} iteration {where} loss {loss:.4f} lr {lr:.3g} "
                f"data wait {self.watch.wait_share:.0%} eta {eta}"
            )
        self.run.log.stats(
            "train_iter",
            epoch=self.label,
            iter=where,
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            sec_per_iter=sec_per_iter,
            clips_per_sec=self.clips / self.watch.elapsed_sec,
            data_wait_share=self.watch.wait_share,
            gpu_memory_gib=gpu_memory_gib(self.run.device),
            eta=eta,
        )
        step = self.epoch * self.num_iterations + iteration + 1
        norm = {} if grad_norm is None else {"train__grad_norm": grad_norm}
        self.run.log.scalars(step, train__loss=loss, train__lr=lr, **norm)

    def end(self) -> None:
        """Close the bar and log the epoch."""
        self.bar.close()
        self.run.log.line(
            f"epoch {self.label} done: loss {self.loss.value:.4f}, "
            f"{self.clips / self.watch.elapsed_sec:.1f} clips/s, "
            f"data wait {self.watch.wait_share:.0%}, {clock(self.watch.elapsed_sec)}"
        )
        self.run.log.stats(
            "train_epoch",
            epoch=self.label,
            loss=self.loss.value,
            lr=self.lr,
            epoch_sec=self.watch.elapsed_sec,
            clips_per_sec=self.clips / self.watch.elapsed_sec,
            data_wait_share=self.watch.wait_share,
            bad_videos=self.num_failures,
            skipped_steps=self.run.guard.num_skipped - self.skipped_before,
            gpu_memory_gib=gpu_memory_gib(self.run.device),
        )


def gpu_memory_gib(device: torch.device) -> float:
    """Return the most GPU memory that was in use so far, in GiB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
