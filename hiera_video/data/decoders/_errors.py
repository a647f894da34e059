"""The error that every decoder raises."""

from hiera_video.utils.errors import UserError
from hiera_video.utils.text import printable


class DecodeError(UserError):
    """A video that cannot be read; one line naming the path and the cause in plain words."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"{printable(path)}: {cause}")
        self.path = path
        self.cause = cause

    def __reduce__(self) -> tuple[type["DecodeError"], tuple[str, str]]:
        # Exceptions cross from loader workers by pickle, which would call us with one argument.
        return DecodeError, (self.path, self.cause)


def too_few(path: str, *, decoded: int, promised: int, index: int) -> DecodeError:
    """Return the error for a video that yields fewer frames than it promised."""
    return DecodeError(
        path,
        f"only {decoded} of the promised {promised} frames can be decoded and frame {index} was "
        "asked for; the file is damaged or truncated.",
    )
