"""Report what is unusual in a list but may be intended; nothing is changed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hiera_video.data.checks.fingerprint import VideoFacts, list_facts
from hiera_video.data.records import VideoRecord
from hiera_video.utils.text import printable

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Note:
    """One finding: its short name, a phrase that describes it, and the paths or classes."""

    kind: str
    text: str
    concerned: tuple[str, ...]

    def line(self) -> str:
        """Return the note as one line that names the first few paths or classes."""
        shown = ", ".join(map(printable, self.concerned[:_SHOWN]))
        more = len(self.concerned) - _SHOWN
        return f"{self.text} ({len(self.concerned):,}): {shown}" + (
            f" and {more:,} more" if more > 0 else ""
        )


def find_notes(
    records: Sequence[VideoRecord],
    num_classes: int,
    facts_by_path: Mapping[str, VideoFacts | None],
    *,
    class_names: Sequence[str] | None = None,
) -> list[Note]:
    """Find videos listed twice, with two labels, or too short, and classes without a video."""
    labels_of: dict[str, list[int]] = defaultdict(list)
    for record in records:
        labels_of[record.path].append(record.label)
    twice = [path for path, labels in labels_of.items() if len(labels) > 1]
    torn = [path for path in twice if len(set(labels_of[path])) > 1]
    short = [path for path in labels_of if (f := facts_by_path[path]) is not None and f.is_short]
    empty = [
        f"{label} ({class_names[label]})" if class_names else str(label)
        for label in list_facts(records, num_classes).empty_classes()
    ]
    found = [
        ("listed twice", "videos listed more than once", twice),
        ("two labels", "videos with more than one label", torn),
        ("short", "videos shorter than a clip, whose last frame is repeated", short),
        ("empty class", "classes without a video", empty),
    ]
    return [Note(kind, text, tuple(concerned)) for kind, text, concerned in found if concerned]
