"""Model families: one file each, one public function per size."""

import importlib
from importlib.util import find_spec
from typing import Any


def __getattr__(name: str) -> Any:
    """Import a module of this package when it is asked for, as in `hiera_video.models.hiera`."""
    module = f"{__name__}.{name}"
    if name.startswith("_") or find_spec(module) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(module)
