"""Numbers that follow from a config's keys, and are never written back into one."""

from hiera_video.config.schema import Config


def views_per_video(cfg: Config) -> int:
    """Return how many views training takes of one decoded video (repeated augmentation)."""
    return cfg.AUG.NUM_SAMPLE if cfg.AUG.ENABLE else 1


def iterations_per_epoch(num_videos: int, batch_size: int) -> int:
    """Return the training iterations of one epoch, each of `batch_size` videos.

    A last batch that is not full is left out, unless it is the only one.
    """
    return max(num_videos // batch_size, 1)
