"""What a file or a command line says, before anyone has asked whether it makes sense."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hiera_video.utils.errors import UserError


@dataclass(frozen=True)
class Setting:
    """One key as a person set it: dotted name, raw value, and where ("file:line")."""

    name: str
    value: object
    place: str


@dataclass
class Reading:
    """The settings of one source, in order, and what was wrong with how they are written.

    `faulty` holds the keys whose value is in doubt for that reason; `complete` is False where a
    whole part could not be read, so that any key may be in doubt.
    """

    settings: list[Setting] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    faulty: set[str] = field(default_factory=set)
    complete: bool = True


class ConfigError(UserError):
    """All problems of one configuration: `problems` holds them, `str()` lists one per line."""

    def __init__(self, problems: Sequence[str], *, source: str) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in {source}:", *(f"  {p}" for p in self.problems)]))
