"""What is measured of training steps, and the figures that it gives."""

import statistics
from dataclasses import dataclass, field

from hiera_video.benchmark.train.step import BACKWARD, COMMUNICATION
from hiera_video.config import Config

PLAIN, PUBLISHED = "plain", "published"
VARIANTS = (PLAIN, "encoder", "step", "checkpoint", PUBLISHED)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What to measure: `variants` of VARIANTS, in `rounds` turns of `steps` steps each.

    `cfg` holds model, batch size, augmentation and optimizer; with a DATA.PATH_TO_DATA_DIR the
    clips come from its loader. `threads` of each process, 0: PyTorch's own choice, or
    where there are several, the cores shared out among them.
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
    """A variant's figures: seconds of its counted steps by phase, and of all phases together.

    `peak_bytes` are those of weights, gradients, optimizer and activations. `first_loss` is that
    of the first step; variants of our model drop the same paths in it. `note` says why the variant
    has no figures.
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
        """Return the median seconds of each phase, with what is communication taken from them."""
        names = self.phases[0]
        medians = {name: statistics.median(one[name] for one in self.phases) for name in names}
        if self.communication:
            sent = min(max(statistics.median(self.communication), 0.0), medians[BACKWARD])
            medians[BACKWARD] -= sent
            medians[COMMUNICATION] = sent
        return medians


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The figures by variant, and what they are measured by.

    `operations` are those of a forward and a backward pass of one clip; `plain_losses` the losses
    of our model and the published one with the same weights and clips and nothing dropped.
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
        """Return the variant's operations per second over those of matrix products alone."""
        useful = self.operations * self.num_clips / self.figures[name].step_sec
        return useful / self.matmul_rate
