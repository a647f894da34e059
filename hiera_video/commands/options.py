"""What command lines have in common: a parser, KEY VALUE pairs, types of numbers, models."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import hiera_video


def command_parser(description: str, **settings: Any) -> argparse.ArgumentParser:
    """Return a parser whose usage line names the command as the user typed it."""
    return argparse.ArgumentParser(prog=sys.argv[0], description=description, **settings)


def add_overrides(parser: argparse.ArgumentParser, about: str = "config overrides") -> None:
    """Add the KEY VALUE pairs that end a command line; no option may follow them."""
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=about)


def positive(kind: type) -> Callable[[str], Any]:
    """Return a function that reads a number of this kind above 0, for `type=`."""

    def number_above_0(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    return number_above_0


def fraction(text: str) -> float:
    """Read a number above 0 and below 1, for `type=`."""
    number = float(text)
    if not 0 < number < 1:
        raise ValueError
    return number


def model_functions(*prefixes: str) -> dict[str, Callable[..., Any]]:
    """Return the public functions of hiera_video that make a model, by name."""
    names = [name for name in hiera_video.__all__ if name.startswith(prefixes)]
    return {name: getattr(hiera_video, name) for name in names}
