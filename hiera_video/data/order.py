"""The order in which an epoch reads the videos; it depends on the seed and the epoch alone.

Several processes split this order. In one iteration they read one global batch, which contains the
same videos for any number of processes.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from hiera_video.config import iterations_per_epoch
from hiera_video.data.shards.members import shard_order
from hiera_video.utils.seed import rng_for


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields batches of `(epoch, index)` keys, shuffled in each epoch from `seed` and the epoch.

    With `shuffle`, an incomplete last batch is dropped unless it is the only one. Every iteration
    then sees as many videos as the learning rate was set for. With `shard_of_video_N`, the shards
    are shuffled, and videos are shuffled within a few shards, so that few shards are in use at a
    time. `first` is the batch to start with when a run resumes in the middle of an epoch.

    With `shuffle`, process `rank` of `world_size` gets its part of every batch of `batch_size`
    videos. Without it (evaluation), it gets every `world_size`-th batch complete. Each video is
    then read once, and its batch holds the same videos as in a run of one process.
    """

    def __init__(
        self,
        num_videos: int,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        shard_of_video_N: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_videos = num_videos
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.shard_of_video_N = shard_of_video_N
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.first = 0

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self._order()
        for batch in self._batches()[self.first :]:
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            if self.shuffle:
                chosen = chosen[part_of_batch(len(chosen), self.rank, self.world_size)]
            yield [(self.epoch, int(index)) for index in chosen]

    def _batches(self) -> range:
        """Return the numbers of the batches that this process reads, completely or partly."""
        if self.shuffle:
            return range(iterations_per_epoch(self.num_videos, self.batch_size))
        return range(self.rank, -(-self.num_videos // self.batch_size), self.world_size)

    def _order(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.num_videos)
        rng = rng_for("order", self.seed, self.epoch)
        if self.shard_of_video_N is not None:
            return shard_order(self.shard_of_video_N, rng)
        return rng.permutation(self.num_videos)


def part_of_batch(size: int, rank: int, world_size: int) -> np.ndarray:
    """Return the positions in a batch of `size` that process `rank` reads, in ascending order.

    The parts differ in size by at most one. Mixup blends positions i and size - 1 - i, so both go
    to the same process where possible, always if `size / world_size` is even. Mixup then blends the
    same clips for any number of processes.
    """
    sizes = np.array([size // world_size + (r < size % world_size) for r in range(world_size)])
    halves = sizes // 2
    start = halves[:rank].sum()
    left = np.arange(start, start + halves[rank])
    # If a process's part is odd, its extra position is taken from the middle.
    middle = halves.sum() + (sizes[:rank] % 2).sum() + np.arange(sizes[rank] % 2)
    return np.concatenate([left, middle, size - 1 - left[::-1]]).astype(np.int64)
