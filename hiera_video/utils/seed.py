"""Random numbers that depend on what they are for, not on when or where they are drawn."""

import zlib

import numpy as np


def rng_for(purpose: str, *key: int) -> np.random.Generator:
    """Return a generator for a purpose and a key such as ("sample", seed, epoch, video_index).

    The same purpose and key give the same numbers in every process and for any number of loader
    workers, so that a resumed run draws what an uninterrupted one would. The numbers of `key` are
    >= 0.
    """
    return np.random.default_rng(_sequence(purpose, key))


def seed_for(purpose: str, *key: int) -> int:
    """Return an integer in [0, 2**63) for a purpose and a key, for `torch.manual_seed`."""
    return int(_sequence(purpose, key).generate_state(1, np.uint64)[0] >> 1)


def _sequence(purpose: str, key: tuple[int, ...]) -> np.random.SeedSequence:
    # SeedSequence ignores zeros at the end: without the length, (0, 3) would be (0, 3, 0).
    return np.random.SeedSequence((zlib.crc32(purpose.encode()), len(key), *key))
