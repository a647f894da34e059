"""Count the cost of a run's model from its config."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

from hiera_video.config import Config
from hiera_video.flops.report import report_config
from hiera_video.report.parts import Missing, attempt


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-adds of one view and the model's parameters; too low, perhaps, if `incomplete`."""

    multiply_adds_per_view: int
    parameters: int
    incomplete: bool


def cost_of(config: Config | Missing) -> Cost | Missing:
    """Count the cost of a config's model, which takes about two seconds."""
    if isinstance(config, Missing):
        return Missing("The FLOPs cannot be counted without the config.")
    # Compared runs mostly share a model. Keys that do not change it are reset, so that the cached
    # count is shared.
    default = Config()
    config = dataclasses.replace(
        config, OUTPUT_DIR="", RNG_SEED=0, TRAIN=default.TRAIN, SOLVER=default.SOLVER
    )
    return attempt("The FLOPs could not be counted", lambda: _count(config))


@lru_cache(maxsize=32)
def _count(config: Config) -> Cost:
    cost = report_config(config, "").cost
    return Cost(cost.multiply_adds, cost.parameters, cost.incomplete)
