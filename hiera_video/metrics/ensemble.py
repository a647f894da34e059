"""Average the scores of a video's views, also over the views of smaller tests.

Shape suffixes: V views (temporal clips x spatial crops, the crops of the first clip first),
S crops, K classes, N videos.
"""

import numpy as np


class VideoScores:
    """Collects each video's mean score; a video that comes twice counts once.

    For every entry of `view_subsets` (a name and the indices of its views) it keeps the mean over
    these views. So one pass gives the accuracy for many numbers of views.
    """

    def __init__(self, view_subsets: dict[str, np.ndarray]) -> None:
        self.view_subsets = view_subsets
        self._means: dict[int, dict[str, np.ndarray]] = {}
        self._labels: dict[int, int] = {}

    def add(self, video_index: int, label: int, probabilities_VK: np.ndarray) -> None:
        """Add the probabilities of all views of one video."""
        if video_index in self._labels:
            return
        self._labels[video_index] = label
        self._means[video_index] = {
            name: probabilities_VK[places].mean(0) for name, places in self.view_subsets.items()
        }

    def take(self, other: "VideoScores") -> None:
        """Merge the videos that another process scored."""
        self._labels = other._labels | self._labels
        self._means = other._means | self._means

    def __len__(self) -> int:
        return len(self._labels)

    def video_indices(self) -> np.ndarray:
        """Return the indices of the scored videos, ascending: int64 `[N]`."""
        return np.array(sorted(self._labels), dtype=np.int64)

    def labels(self) -> np.ndarray:
        """Return the labels of the scored videos, int64 `[N]`."""
        return np.array([self._labels[i] for i in self.video_indices()], dtype=np.int64)

    def scores(self, name: str) -> np.ndarray:
        """Return the scores of the videos for one view subset, float32 `[N, K]`."""
        rows = [self._means[int(i)][name] for i in self.video_indices()]
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, 0), np.float32)


def growing_view_subsets(num_clips: int, num_crops: int) -> dict[str, np.ndarray]:
    """Return, for each "clips x crops" from 1x1 to the full test, the indices of its views.

    t of n clips are spaced evenly: the middle one for 1, the two ends for 2, and so on. Where the
    clips of a test with t clips are among the n, they are these. Crops are the centre one, or all.
    """
    subsets: dict[str, np.ndarray] = {}
    centre = num_crops // 2
    for crops in dict.fromkeys([1, num_crops]):
        chosen_crops_S = np.array([centre]) if crops == 1 else np.arange(num_crops)
        for clips in range(1, num_clips + 1):
            even = np.linspace(0, num_clips - 1, clips) if clips > 1 else [(num_clips - 1) / 2]
            chosen_clips = np.rint(even).astype(np.int64)
            subsets[f"{clips}x{crops}"] = (
                chosen_clips[:, None] * num_crops + chosen_crops_S[None]
            ).reshape(-1)
    return subsets
