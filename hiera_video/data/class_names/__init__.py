"""Class names of published data sets, one text file each; lines with "#" in front are comments."""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import zip_longest
from typing import TypeGuard

from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest


def known_lists() -> list[str]:
    """Return the names that `published_names` accepts: "kinetics400" and "ssv2"."""
    files = (file.name for file in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(".txt") for name in files if name.endswith(".txt"))


@cache
def published_names(name: str) -> tuple[str, ...]:
    """Return the class names of a published data set in the order of their labels.

    Raises:
        UserError: `name` is not one of `known_lists()`.
    """
    if name not in known_lists():
        raise UserError(
            f"the list of class names must be one of {', '.join(known_lists())}, got {name!r}."
            + closest(name, known_lists())
        )
    return parse_names(resources.files(__name__).joinpath(f"{name}.txt").read_text("utf-8"))


def parse_names(text: str) -> tuple[str, ...]:
    """Return the lines of `text` that are not empty and do not begin with "#"."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def contradiction(theirs: object, ours: Sequence[str] | None) -> str:
    """Compare the class names of a checkpoint and a data set; describe the first difference, or "".

    `theirs` is the value from the checkpoint. If either has no names, the result is "". Names that
    differ in case, spaces or underscores count as equal.
    """
    if not is_names(theirs) or not ours:
        return ""
    pairs = enumerate(zip_longest(theirs, ours))
    for label, (there, here) in pairs:
        if there is None or here is None or _plain(there) != _plain(here):
            said = f"class {label} is {_quoted(there)} in the checkpoint and {_quoted(here)} here"
            return said + "; the names are the same in another order" * are_reordered(theirs, ours)
    return ""


def are_reordered(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether two lists hold the same names in different orders."""
    one, other = (list(map(_plain, each)) for each in (names, others))
    return one != other and sorted(one) == sorted(other)


def is_names(value: object) -> TypeGuard[Sequence[str]]:
    """Return whether a value from a checkpoint is a list of names that is not empty."""
    return isinstance(value, list | tuple) and bool(value) and all(type(v) is str for v in value)


def _plain(name: str) -> str:
    # Earlier releases kept a list's byte order mark as part of its first name.
    return " ".join(name.lstrip("\ufeff").replace("_", " ").casefold().split())


def _quoted(name: str | None) -> str:
    return "none" if name is None else repr(name)
