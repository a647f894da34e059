"""What the config of a resumed run says otherwise than that of its checkpoint."""

from typing import Any

import yaml

from hiera_video.config import Config, to_yaml


def changed_keys(saved_yaml: str, cfg: Config) -> list[str]:
    """Return "KEY: then -> now" for each key that a checkpoint's `cfg` has another value of."""
    saved = _flat(yaml.safe_load(saved_yaml) or {})
    now = _flat(yaml.safe_load(to_yaml(cfg)))
    return [
        f"{key}: {saved.get(key)} -> {now.get(key)}"
        for key in dict.fromkeys([*saved, *now])
        if saved.get(key) != now.get(key)
    ]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat
