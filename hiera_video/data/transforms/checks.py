"""Range checks shared by the transforms; each error names the argument and its value."""

from hiera_video.utils.errors import UserError


def check_fraction(name: str, value: float) -> None:
    """Raise a UserError unless `value` lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise UserError(f"{name} must be in [0, 1], got {value}. Try 0 to switch it off.")


def check_range(name: str, low_high: tuple[float, float], *, at_most: float = float("inf")) -> None:
    """Raise a UserError unless 0 < low <= high <= at_most."""
    low, high = low_high
    if not 0.0 < low <= high <= at_most:
        limit = "" if at_most == float("inf") else f" <= {at_most:g}"
        raise UserError(
            f"{name} must be a pair with 0 < low <= high{limit}, got {tuple(low_high)}. "
            "Try two equal numbers for a fixed value."
        )


def check_positive(name: str, value: int) -> None:
    """Raise a UserError unless `value` is at least 1."""
    if value < 1:
        raise UserError(f"{name} must be at least 1, got {value}. Try 224 for a size in pixels.")
