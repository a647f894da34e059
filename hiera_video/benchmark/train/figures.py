"""Settings and figures of the benchmark of training steps."""

import statistics
from dataclasses import dataclass, field

from hiera_video.benchmark.train.step import BACKWARD, COMMUNICATION
from hiera_video.config import Config

PLAIN, PUBLISHED = "plain", "published"
VARIANTS = (PLAIN, "encoder", "step", "checkpoint", PUBLISHED)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What to measure: `variants` of VARIANTS, in `rounds` turns of `steps` steps each.

    `cfg` holds model, batch size, augmentation and optimizer. If it has a DATA.PATH_TO_DATA_DIR,
    the clips come from its loader. `threads` is per process; 0 leaves the choice to PyTorch, or
    with several processes divides the cores among them.
    """

    cfg: Config
    variants: tuple[str, ...]
    rounds: int
    steps: int = 1
    device: str = "cpu"
    processes: int = 1
    threads: int = 0


@dataclass(slots=True)
class Figures:
    """A variant's figures: the mean seconds of a step by phase, for each round.

    `communication` holds the backward seconds that synchronisation adds, for each round.
    `first_sec` and `first_loss` are of the first step, in which variants of our model drop the same
    paths. `peak_bytes` covers weights, gradients, optimizer and activations. `note` says why the
    variant has no figures.
    """

    phases: list[dict[str, float]] = field(default_factory=list)
    communication: list[float] = field(default_factory=list)
    first_sec: float = 0.0
    first_loss: float = float("nan")
    peak_bytes: int = 0
    note: str = ""

    @property
    def rounds_sec(self) -> list[float]:
        """The seconds of a step, round by round."""
        return [sum(phases.values()) for phases in self.phases]

    @property
    def step_sec(self) -> float:
        """The median seconds of a step."""
        return statistics.median(self.rounds_sec)

    def phase_sec(self) -> dict[str, float]:
        """Return the median seconds of each phase, with communication separated from backward."""
        names = self.phases[0]
        medians = {name: statistics.median(one[name] for one in self.phases) for name in names}
        if self.communication:
            sent = min(max(statistics.median(self.communication), 0.0), medians[BACKWARD])
            medians[BACKWARD] -= sent
            medians[COMMUNICATION] = sent
        return medians


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The figures by variant, and the conditions of the measurement.

    `operations` is the number for a forward and a backward pass of one clip. `plain_losses` are the
    losses of our model and the published one, with the same weights and clips and without dropout.
    """

    figures: dict[str, Figures]
    num_clips: int  # of each process
    processes: int
    threads: int
    device: str
    bfloat16: bool
    from_loader: bool
    operations: float
    matmul_rate: float
    plain_losses: dict[str, float]

    def share_of_peak(self, name: str) -> float:
        """Return the variant's operations per second over those of pure matrix products."""
        useful = self.operations * self.num_clips / self.figures[name].step_sec
        return useful / self.matmul_rate
