"""The one error of this room: every problem of a configuration, in one message."""

from collections.abc import Sequence

from hiera_video.utils.errors import UserError


class ConfigError(UserError):
    """All problems of one configuration: `problems` holds them, `str()` lists one per line."""

    def __init__(self, problems: Sequence[str], *, source: str) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in {source}:", *(f"  {p}" for p in self.problems)]))
