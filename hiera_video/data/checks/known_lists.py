"""Sizes of published lists, to compare a user's own list with.

- Kinetics-400: the official list names 246,535 training and 19,907 validation videos, by
  facebookresearch/video-nonlocal-net, DATASET.md, and by cvdfoundation/kinetics-dataset, issue 51,
  whose copy has 241,258 and 19,881 of them. (The paper, arXiv 1705.06950, counts 306,245 in all, 50
  of each class for validation and 100 for testing, which leaves 246,245. What people have are the
  lists.) Videos vanish from the web, so copies differ. One has 240,436 and 19,796 videos, by
  open-mmlab/mmaction2, tools/data/kinetics/README.md. The data of PySlowFast's models has 234,643
  and 19,761, by video-nonlocal-net (facebookresearch/SlowFast, slowfast/datasets/DATASET.md).
- Something-Something v2: 168,913 and 24,777, by OpenGVLab/VideoMAEv2, docs/DATASET.md; 220,847 with
  the test set, by its data set card, which leaves 27,157 for testing.
"""

from dataclasses import dataclass

# A list is compared with a published one if it has 0.5 to 1.1 times as many videos.
_SAME_ORDER = (0.5, 1.1)


@dataclass(frozen=True, slots=True)
class KnownList:
    """A published list: its name, its number of videos, and those of copies in use."""

    num_classes: int
    name: str
    num_videos: int
    copies: tuple[tuple[int, str], ...] = ()


KNOWN_LISTS = (
    KnownList(
        400,
        "Kinetics-400 training",
        246_535,
        ((241_258, "CVDF"), (240_436, "MMAction2"), (234_643, "Non-local Networks")),
    ),
    KnownList(
        400,
        "Kinetics-400 validation",
        19_907,
        ((19_881, "CVDF"), (19_796, "MMAction2"), (19_761, "Non-local Networks")),
    ),
    KnownList(174, "Something-Something v2 training", 168_913),
    KnownList(174, "Something-Something v2 validation", 24_777),
    KnownList(174, "Something-Something v2 test", 27_157),
)


def compare_with_known(num_videos: int, num_classes: int) -> list[str]:
    """Compare a number of videos with the nearest published list, in one line or none."""
    low, high = _SAME_ORDER
    fitting = [
        known
        for known in KNOWN_LISTS
        if known.num_classes == num_classes
        and low * known.num_videos <= num_videos <= high * known.num_videos
    ]
    if not fitting:
        return []
    known = min(fitting, key=lambda known: abs(known.num_videos - num_videos))
    line = f"{known.name}: {_difference(num_videos, known.num_videos)} of the official list"
    if num_videos != known.num_videos and known.copies:
        size, owner = min(known.copies, key=lambda copy: abs(copy[0] - num_videos))
        line += f"; {_difference(num_videos, size)} of the copy of {owner}"
    return [line]


def _difference(num_videos: int, reference: int) -> str:
    if num_videos == reference:
        return f"as many as the {reference:,}"
    share = abs(num_videos - reference) / reference
    size = f"{100 * share:.1f} %" if share >= 0.0005 else f"{abs(num_videos - reference)}"
    return f"{size} {'fewer' if num_videos < reference else 'more'} than the {reference:,}"
