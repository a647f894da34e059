"""The error that is meant for the person at the keyboard."""

from hiera_video.utils.text import printable


class UserError(ValueError):
    """Something the user can put right; tools print it as it is, without a traceback.

    The message reads "KEY must be RULE, got VALUE. Try X." or names the path and the cause. What a
    terminal would obey in it, a name's escape sequence say, is escaped.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message), keep="\n"))
