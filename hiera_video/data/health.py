"""How many videos of a run are bad, and when that is too many."""

from collections.abc import Sequence
from typing import Protocol

from hiera_video.data.dataset import Failure
from hiera_video.utils.errors import UserError

# A wrong folder or a broken decoder shows in the first videos; a few bad files do not.
FIRST_VIDEOS = 20
# Before so many have been tried, one bad file is too large a share of them.
ENOUGH_VIDEOS = 100


class Tried(Protocol):
    """What became of some videos: a batch's, or those of all processes."""

    @property
    def num_videos(self) -> int:
        """How many decoded."""

    @property
    def failures(self) -> Sequence[Failure]:
        """Those that did not."""


class BadVideos:
    """Counts the videos that were tried and that failed, names each once, and says when to stop.

    Args:
        max_fraction: the largest share of tried videos that may fail, 0 to 1
            (DATA.MAX_BAD_FRACTION).
    """

    def __init__(self, max_fraction: float) -> None:
        self.max_fraction = max_fraction
        self.num_tried = 0
        self.num_failed = 0
        self.reasons: dict[str, str] = {}  # by path, the first one

    def add(self, tried: Tried) -> list[str]:
        """Count the videos; return why each one failed that had not failed before."""
        self.num_tried += tried.num_videos + len(tried.failures)
        self.num_failed += len(tried.failures)
        new: dict[str, str] = {}
        for failure in tried.failures:
            if failure.path not in self.reasons:
                new.setdefault(failure.path, failure.reason)
        self.reasons |= new
        return list(new.values())

    def check(self, *, at_end: bool = False) -> None:
        """Say whether the run may go on; `at_end` of an epoch also if few videos were tried.

        Raises:
            UserError: all of the first were bad, or more than `max_fraction`.
        """
        if self.num_failed == self.num_tried >= FIRST_VIDEOS:
            raise UserError(
                f"not one of the first {self.num_tried} videos could be decoded, the first: "
                f"{next(iter(self.reasons.values()))} Check DATA.PATH_TO_DATA_DIR and "
                "DATA.PATH_PREFIX."
            )
        if not self.num_failed or not (at_end or self.num_tried >= ENOUGH_VIDEOS):
            return
        if self.num_failed > self.max_fraction * self.num_tried:
            raise UserError(
                "DATA.MAX_BAD_FRACTION must be at least the share of bad videos, got "
                f"{self.max_fraction:g}: {self.num_failed} of {self.num_tried} were not decoded "
                f"({len(self.reasons)} files, the first: {next(iter(self.reasons.values()))}) "
                "Try tools/check_data.py, which lists them all and writes a list without them."
            )
