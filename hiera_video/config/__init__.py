"""The configuration: typed, frozen, and checked at once, with all problems in one message."""

from hiera_video.config.derived import iterations_per_epoch, views_per_video
from hiera_video.config.describe import diff_from_defaults, help_text, to_dict, to_yaml, value_of
from hiera_video.config.load import load_config, load_saved_config
from hiera_video.config.schema import Config
from hiera_video.config.settings import ConfigError

__all__ = [
    "Config",
    "ConfigError",
    "diff_from_defaults",
    "help_text",
    "iterations_per_epoch",
    "load_config",
    "load_saved_config",
    "to_dict",
    "to_yaml",
    "value_of",
    "views_per_video",
]
