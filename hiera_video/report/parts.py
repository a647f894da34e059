"""A part of the report that may be missing, and why it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hiera_video.utils.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Missing:
    """Stands where a part would: `why` is a sentence for the reader."""

    why: str


def attempt(what: str, make: Callable[[], T]) -> T | Missing:
    """Return what `make` returns, or why it could not be made; `what` begins that sentence."""
    try:
        return make()
    except UserError as error:
        return Missing(f"{what}: {error}")
    except Exception as error:
        # Any other error too: files that something has damaged, or that another version wrote,
        # are what a report is read for, and its other parts are worth having.
        return Missing(f"{what}: {type(error).__name__}: {error}")
