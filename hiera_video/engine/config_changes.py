"""What the config of a resumed run says otherwise than that of its checkpoint."""

from hiera_video.checkpoints.saved_config import saved_settings
from hiera_video.config import Config, to_yaml


def changed_keys(saved_yaml: object, cfg: Config) -> list[str]:
    """Return "KEY: then -> now" for each key whose value differs in a checkpoint's `cfg`.

    If that config cannot be read, the only item says so.
    """
    saved, now = saved_settings(saved_yaml), saved_settings(to_yaml(cfg))
    if not saved:
        return ["its config cannot be read, so what it says is not known"]
    return [
        f"{key}: {saved.get(key)} -> {now.get(key)}"
        for key in dict.fromkeys([*saved, *now])
        if saved.get(key) != now.get(key)
    ]
