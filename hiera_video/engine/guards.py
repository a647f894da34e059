"""Skip the steps whose loss or gradient is not finite, and name their videos."""

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from hiera_video.data.loader import Batch
from hiera_video.data.records import VideoRecord
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError

# A loss this many standard deviations above the mean of the finite losses before it is a spike.
SPIKE_SIGMA = 6.0
WINDOW = 100
# The standard deviation of fewer losses says little.
MIN_LOSSES = 20


class StepGuard:
    """Decides which optimizer steps are skipped, and warns about losses that jump.

    A step is bad if a loss in it, or its gradient, is not finite. If it is bad in one process, all
    processes skip it. Rank 0 logs what every process noted.

    Args:
        max_bad_steps: this many bad steps in a row stop the run (TRAIN.MAX_BAD_STEPS).
        records: the training videos, for their paths.
        warn: gets a line for each bad step and each jump of the loss.
    """

    def __init__(
        self, max_bad_steps: int, records: Sequence[VideoRecord], warn: Callable[[str], None]
    ) -> None:
        self.in_a_row = 0
        self.num_skipped = 0
        self._max_bad_steps = max_bad_steps
        self._records = records
        self._warn = warn
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._faults: list[str] = []  # of the current step
        self._spikes: list[str] = []
        self._videos: set[int] = set()

    def add(self, loss: float, batch: Batch, where: str) -> None:
        """Check the loss of one iteration; `where` names the iteration in messages."""
        videos = set(np.unique(batch.video_indices_B.numpy()).tolist())
        self._videos |= videos
        if not math.isfinite(loss):
            self._faults.append(f"the loss became {loss} in {where}")
            return
        if len(self._losses) >= MIN_LOSSES:
            mean, spread = statistics.fmean(self._losses), statistics.pstdev(self._losses)
            if loss > mean + SPIKE_SIGMA * spread:
                self._spikes.append(
                    f"the loss jumped to {loss:.4g} in {where}; the {len(self._losses)} before "
                    f"have a mean of {mean:.4g} and a standard deviation of {spread:.2g}; its "
                    f"videos: {self._paths(videos)}"
                )
        self._losses.append(loss)

    def flags(self, grad_norm: float) -> list[float]:
        """Return what this process noted in the current step, for the sums that `skips` takes.

        That is 1 or 0 each for: a bad loss, a bad loss or gradient, anything to log.
        """
        bad_norm = not math.isfinite(grad_norm)
        bad_loss, spike = bool(self._faults), bool(self._spikes)
        return [float(bad_loss), float(bad_loss or bad_norm), float(bad_loss or bad_norm or spike)]

    def skips(self, grad_norm: float, where: str, sums: Sequence[float] | None = None) -> bool:
        """Say whether to skip the step that ends with iteration `where`; call it once per step.

        `sums` are the sums of `flags` over all processes. None: this process is the only one.

        Raises:
            UserError: it is the last of too many bad steps in a row.
        """
        num_losses, num_bad, num_noted = self.flags(grad_norm) if sums is None else sums
        faults, spikes, videos = self._faults, self._spikes, self._videos
        self._faults, self._spikes, self._videos = [], [], set()
        bad_norm = not math.isfinite(grad_norm)
        self.in_a_row = self.in_a_row + 1 if num_bad else 0
        self.num_skipped += num_bad > 0
        if not num_noted:
            return False
        # A bad loss makes the averaged gradient bad in all processes; name only the loss's videos.
        if bad_norm and not num_losses:
            faults.append(f"the norm of the gradient became {grad_norm} in {where}")
        if faults:
            spikes.append(
                f"{faults[0]}: the step is skipped, the {self.in_a_row}. in a row; its videos: "
                f"{self._paths(videos)}"
            )
        notes = dist.gather((faults[:1], spikes))
        for _, lines in notes:
            for line in lines:
                self._warn(line)
        if self.in_a_row >= self._max_bad_steps:
            first = next(found[0] for found, _ in notes if found)
            raise UserError(
                f"{first}, and TRAIN.MAX_BAD_STEPS ({self._max_bad_steps}) such steps in a row "
                "were skipped. Try a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCHS or "
                "SOLVER.CLIP_GRAD_L2NORM 1.0."
            )
        return num_bad > 0

    def _paths(self, videos: set[int]) -> str:
        return ", ".join(record.path for record in self._records if record.video_index in videos)
