"""Compute numbers that follow from a config's keys; they are never written back into a key."""

from hiera_video.config.schema import Config


def views_per_video(cfg: Config) -> int:
    """Return the number of training views of one decoded video (repeated augmentation)."""
    return cfg.AUG.NUM_SAMPLE if cfg.AUG.ENABLE else 1


def iterations_per_epoch(num_videos: int, batch_size: int) -> int:
    """Return the number of training iterations in one epoch, each of `batch_size` videos.

    An incomplete last batch is dropped, unless it is the only one.
    """
    return max(num_videos // batch_size, 1)
