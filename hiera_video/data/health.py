"""Count the bad videos of a run and stop it if there are too many."""

from collections.abc import Sequence
from typing import Protocol

from hiera_video.data.dataset import Failure
from hiera_video.utils.errors import UserError

# If all of the first videos fail, the folder is wrong or the decoder is broken.
FIRST_VIDEOS = 20
# With fewer videos than this, a single bad file could exceed the allowed fraction.
ENOUGH_VIDEOS = 100


class Tried(Protocol):
    """The outcome of reading some videos: one batch, or the batches of all processes."""

    @property
    def num_videos(self) -> int:
        """The number of videos that decoded."""

    @property
    def failures(self) -> Sequence[Failure]:
        """The videos that did not decode."""


class BadVideos:
    """Counts tried and failed videos, reports each bad file once, and stops the run if too many.

    Args:
        max_fraction: the largest fraction of the tried videos that may fail, 0 to 1
            (DATA.MAX_BAD_FRACTION).
    """

    def __init__(self, max_fraction: float) -> None:
        self.max_fraction = max_fraction
        self.num_tried = 0
        self.num_failed = 0
        self.reasons: dict[str, str] = {}  # the first reason for each path

    def add(self, tried: Tried) -> list[str]:
        """Count the videos; return the reasons for the files that had not failed before."""
        self.num_tried += tried.num_videos + len(tried.failures)
        self.num_failed += len(tried.failures)
        new: dict[str, str] = {}
        for failure in tried.failures:
            if failure.path not in self.reasons:
                new.setdefault(failure.path, failure.reason)
        self.reasons |= new
        return list(new.values())

    def check(self, *, at_end: bool = False) -> None:
        """Raise UserError if too many videos failed.

        The fraction is checked once enough videos were tried, or `at_end` of an epoch in any case.

        Raises:
            UserError: all of the first videos failed, or more than `max_fraction` of all.
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
