"""Random numbers that depend on what they are for, not on when or where they are drawn."""

import numpy as np


def rng_for(*key: int) -> np.random.Generator:
    """Return a generator for a key such as (seed, epoch, video_index).

    The same key gives the same numbers in every process and for any number of loader workers, so
    that a resumed run draws what an uninterrupted one would. The numbers of `key` are >= 0.
    """
    return np.random.default_rng(np.random.SeedSequence(key))


def seed_for(*key: int) -> int:
    """Return an integer in [0, 2**63) for a key, for `torch.manual_seed`."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
