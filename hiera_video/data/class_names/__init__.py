"""Names of the classes of published data sets, a text file each; a line with "#" is a comment."""

from functools import cache
from importlib import resources

from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest


def known_lists() -> list[str]:
    """Return what `published_names` knows: "kinetics400" and "ssv2"."""
    files = (file.name for file in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(".txt") for name in files if name.endswith(".txt"))


@cache
def published_names(name: str) -> tuple[str, ...]:
    """Return the names of a data set's classes, in the order of their labels.

    Raises:
        UserError: it is none of `known_lists()`.
    """
    if name not in known_lists():
        raise UserError(
            f"the list of class names must be one of {', '.join(known_lists())}, got {name!r}."
            + closest(name, known_lists())
        )
    return parse_names(resources.files(__name__).joinpath(f"{name}.txt").read_text("utf-8"))


def parse_names(text: str) -> tuple[str, ...]:
    """Return the lines that are not empty and do not begin with "#"."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
