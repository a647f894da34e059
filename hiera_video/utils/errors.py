"""The error for mistakes that the user can correct."""

from hiera_video.utils.text import printable

# A name of thousands of letters would push the rule and the advice off the screen.
_LONGEST_LINE = 1200


class UserError(ValueError):
    """A mistake that the user can correct; tools print it without a traceback.

    The message reads "KEY must be RULE, got VALUE. Try X." or names the path and the cause.
    Characters that a terminal would interpret, such as escape sequences in a file name, are
    escaped. A line of more than 1,200 characters loses its middle.
    """

    def __init__(self, message: object = "") -> None:
        half = _LONGEST_LINE // 2
        lines = [
            line if len(line) <= _LONGEST_LINE else f"{line[:half]} [...] {line[-half:]}"
            for line in printable(str(message), keep="\n").split("\n")
        ]
        super().__init__("\n".join(lines))


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
