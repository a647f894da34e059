"""The error that is meant for the person at the keyboard."""

from hiera_video.utils.text import printable

# A name of thousands of letters would push the rule and the way out off the screen.
_LONGEST_LINE = 1200


class UserError(ValueError):
    """Something the user can put right; tools print it as it is, without a traceback.

    The message reads "KEY must be RULE, got VALUE. Try X." or names the path and the cause. What a
    terminal would obey in it, a name's escape sequence say, is escaped. A line of more than 1,200
    characters loses its middle.
    """

    def __init__(self, message: object = "") -> None:
        lines = printable(str(message), keep="\n").split("\n")
        super().__init__("\n".join(map(_shortened, lines)))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def cause_of(error: BaseException) -> str:
    """Return the system's message for an OSError that has one, else the first line of `error`."""
    return getattr(error, "strerror", None) or first_line(error)


def reason_of(error: BaseException) -> str:
    """Return an error's class and the first line of its message."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


def _shortened(line: str) -> str:
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} [...] {line[-half:]}"
