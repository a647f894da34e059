"""Random generators seeded by the purpose of the numbers, not by when or where they are drawn."""

import zlib

import numpy as np


def rng_for(purpose: str, *key: int) -> np.random.Generator:
    """Return a generator for a purpose and a key such as ("sample", seed, epoch, video_index).

    The same purpose and key give the same numbers in every process and for any number of loader
    workers, so that a resumed run draws the same numbers as an uninterrupted one. The numbers of
    `key` are >= 0.
    """
    return np.random.default_rng(_sequence(purpose, key))


def seed_for(purpose: str, *key: int) -> int:
    """Return an integer in [0, 2**63) for a purpose and a key, for `torch.manual_seed`."""
    return int(_sequence(purpose, key).generate_state(1, np.uint64)[0] >> 1)


def _sequence(purpose: str, key: tuple[int, ...]) -> np.random.SeedSequence:
    # SeedSequence ignores trailing zeros. The length distinguishes (0, 3) from (0, 3, 0).
    return np.random.SeedSequence((zlib.crc32(purpose.encode()), len(key), *key))
