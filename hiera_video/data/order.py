"""The order in which an epoch reads the videos: drawn from seed and epoch, and nothing else.

Several processes share it out. What all of them read for one iteration is one global batch, the
same videos for any number of processes.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from hiera_video.config import iterations_per_epoch
from hiera_video.data.shards.members import shard_order
from hiera_video.utils.seed import rng_for


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of `(epoch, index)` keys; shuffled anew in each epoch from `seed` alone.

    With `shuffle`, a last batch that is not full is left out (unless it is the only one), so that
    every iteration sees as many videos as the learning rate was set for. With `shard_of_video_N`,
    the shards are shuffled, and the videos within a few shards, so that few are open at a time.
    `first` is the batch to begin with, for a run that goes on in the middle of an epoch.

    Process `rank` of `world_size` gets, with `shuffle`, its part of every batch of `batch_size`
    videos; without, for an evaluation, every `world_size`-th batch whole, so that each video is
    read once and computed in the company that it has in a run of one process.
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
        """Return the numbers of the batches that this process reads, whole or in part."""
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
    """Return the places in a batch of `size` that are process `rank`'s, ascending.

    As equal in number as can be. A place and its mirror image (i and size - 1 - i) go to the same
    process as far as that is possible, always if `size / world_size` is even: mixup blends these
    two, and then blends the same clips for any number of processes.
    """
    sizes = np.array([size // world_size + (r < size % world_size) for r in range(world_size)])
    halves = sizes // 2
    start = halves[:rank].sum()
    left = np.arange(start, start + halves[rank])
    # What is over where a process gets an odd number stands in the middle, one for each of them.
    middle = halves.sum() + (sizes[:rank] % 2).sum() + np.arange(sizes[rank] % 2)
    return np.concatenate([left, middle, size - 1 - left[::-1]]).astype(np.int64)
