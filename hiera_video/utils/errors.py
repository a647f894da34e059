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


def _shortened(line: str) -> str:
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} [...] {line[-half:]}"
