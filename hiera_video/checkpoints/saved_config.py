"""Read the settings of the config that a run saved in its checkpoint, an untrusted file."""

from typing import Any

import yaml

from hiera_video.utils.bounded_yaml import compose


def saved_settings(text: object) -> dict[str, Any]:
    """Return the settings of a saved config by dotted name; {} if `text` is no valid config."""
    if not isinstance(text, str):
        return {}
    try:
        loader, root = compose(text)
        tree = loader.construct_document(root) if root is not None else None
        return _flat(tree) if isinstance(tree, dict) else {}
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}


def _flat(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
