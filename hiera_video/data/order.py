"""The order in which an epoch reads the videos: drawn from seed and epoch, and nothing else."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from hiera_video.data.shards import shard_order
from hiera_video.utils.seed import rng_for


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of `(epoch, index)` keys; shuffled anew in each epoch from `seed` alone.

    With `shuffle`, a last batch that is not full is left out (unless it is the only one), so that
    every iteration sees as many videos as the learning rate was set for. With `shard_of_video_N`,
    the shards are shuffled, and the videos within a few shards, so that few are open at a time.
    `first` is the batch to begin with, for a run that goes on in the middle of an epoch.
    """

    def __init__(
        self,
        num_videos: int,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        shard_of_video_N: np.ndarray | None = None,
    ) -> None:
        self.num_videos = num_videos
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.shard_of_video_N = shard_of_video_N
        self.epoch = 0
        self.first = 0

    def __len__(self) -> int:
        if self.shuffle:
            return max(self.num_videos // self.batch_size, 1)
        return -(-self.num_videos // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self._order()
        for batch in range(self.first, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in chosen]

    def _order(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.num_videos)
        rng = rng_for("order", self.seed, self.epoch)
        if self.shard_of_video_N is not None:
            return shard_order(self.shard_of_video_N, rng)
        return rng.permutation(self.num_videos)
