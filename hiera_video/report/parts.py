"""Represent parts of the report that may be missing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hiera_video.utils.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Missing:
    """Takes the place of a missing part; `why` is a sentence for the reader."""

    why: str


def attempt(what: str, make: Callable[[], T]) -> T | Missing:
    """Return `make()`, or a Missing whose sentence starts with `what` if it raises."""
    try:
        return make()
    except UserError as error:
        return Missing(f"{what}: {error}")
    except Exception as error:
        # Damaged files and files of other versions may raise anything. They are often why someone
        # reads a report, so the other parts are still made.
        return Missing(f"{what}: {type(error).__name__}: {error}")
