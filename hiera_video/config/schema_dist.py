"""The keys of runs of several processes: DIST."""

from dataclasses import dataclass
from typing import Annotated

from hiera_video.config.rules import Key


@dataclass(frozen=True)
class DistSection:
    """Several processes, on one machine or many."""

    STRATEGY: Annotated[
        str,
        Key(
            "How processes share a training: ddp, each with the whole model, or fsdp, weights, "
            "gradients and optimizer state cut up among them, for models that are too large.",
            choices=("ddp", "fsdp"),
        ),
    ] = "ddp"
    TIMEOUT_SEC: Annotated[
        float,
        Key(
            "Longest that processes wait for one another, at the start, in a step, and for a "
            "checkpoint to be written.",
            unit="s",
            above=0.0,
            maximum=10**7,
        ),
    ] = 600.0
    WATCHDOG_SEC: Annotated[
        float,
        Key(
            "Name the processes that keep the others waiting when an iteration takes longer than "
            "this, and five times the usual; 0: never.",
            unit="s",
            minimum=0.0,
            maximum=10**7,
        ),
    ] = 60.0
