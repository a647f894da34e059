"""Numbers that follow from a config's keys, and are never written back into one."""

from hiera_video.config.schema import Config


def views_per_video(cfg: Config) -> int:
    """Return how many views training takes of one decoded video (repeated augmentation)."""
    return cfg.AUG.NUM_SAMPLE if cfg.AUG.ENABLE else 1
