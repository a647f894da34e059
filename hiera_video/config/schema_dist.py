"""The keys of runs of several processes: DIST."""

from dataclasses import dataclass
from typing import Annotated

from hiera_video.config.rules import Key


@dataclass(frozen=True)
class DistSection:
    """Several processes, on one machine or many."""

    TIMEOUT_SEC: Annotated[
        float,
        Key(
            "Longest that processes wait for one another, at the start, in a step, and for a "
            "checkpoint to be written.",
            unit="s",
            above=0.0,
        ),
    ] = 600.0
    WATCHDOG_SEC: Annotated[
        float,
        Key(
            "Name the processes that keep the others waiting when an iteration takes longer than "
            "this, and five times the usual; 0: never.",
            unit="s",
            minimum=0.0,
        ),
    ] = 60.0
