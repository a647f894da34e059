"""The settings of a file or a command line before they are checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hiera_video.utils.errors import UserError


@dataclass(frozen=True)
class Setting:
    """One key as a person set it: dotted name, raw value, and place ("file:line")."""

    name: str
    value: object
    place: str


@dataclass
class Reading:
    """The settings of one source, in order, and the problems in the way they are written.

    `faulty` holds the keys whose value is uncertain because of a problem. `complete` is False if
    part of the source could not be read, so that any key may be uncertain.
    """

    settings: list[Setting] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    faulty: set[str] = field(default_factory=set)
    complete: bool = True


class ConfigError(UserError):
    """All problems of one configuration, in `problems`, each with its place.

    `str()` is the problem if there is one; several are listed one per line below their number.
    """

    def __init__(self, problems: Sequence[str], *, source: str) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(self.problems[0])
            return
        header = f"{len(self.problems)} problems in {source}:"
        super().__init__("\n".join([header, *(f"  {problem}" for problem in self.problems)]))
