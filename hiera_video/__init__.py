"""hiera_video: video action recognition around Hiera (Ryali et al., ICML 2023)."""

import importlib
from typing import TYPE_CHECKING, Any

from hiera_video.version import __version__

if TYPE_CHECKING:
    from hiera_video.inference.predictor import ClassScore, Prediction, Predictor
    from hiera_video.models.hiera import (
        Hiera,
        hiera_base_16x224,
        hiera_base_224,
        hiera_base_plus_16x224,
        hiera_base_plus_224,
        hiera_huge_16x224,
        hiera_huge_224,
        hiera_large_16x224,
        hiera_large_224,
        hiera_micro_8x64,
        hiera_small_224,
        hiera_tiny_224,
    )
    from hiera_video.models.hiera_mae import (
        MAEOutput,
        MaskedAutoencoderHiera,
        mae_hiera_base_16x224,
        mae_hiera_base_224,
        mae_hiera_base_plus_16x224,
        mae_hiera_base_plus_224,
        mae_hiera_huge_16x224,
        mae_hiera_huge_224,
        mae_hiera_large_16x224,
        mae_hiera_large_224,
        mae_hiera_micro_8x64,
        mae_hiera_small_224,
        mae_hiera_tiny_224,
    )
    from hiera_video.models.load import from_pretrained, load_model

__all__ = [
    "ClassScore",
    "Hiera",
    "MAEOutput",
    "MaskedAutoencoderHiera",
    "Prediction",
    "Predictor",
    "__version__",
    "from_pretrained",
    "hiera_base_16x224",
    "hiera_base_224",
    "hiera_base_plus_16x224",
    "hiera_base_plus_224",
    "hiera_huge_16x224",
    "hiera_huge_224",
    "hiera_large_16x224",
    "hiera_large_224",
    "hiera_micro_8x64",
    "hiera_small_224",
    "hiera_tiny_224",
    "load_model",
    "mae_hiera_base_16x224",
    "mae_hiera_base_224",
    "mae_hiera_base_plus_16x224",
    "mae_hiera_base_plus_224",
    "mae_hiera_huge_16x224",
    "mae_hiera_huge_224",
    "mae_hiera_large_16x224",
    "mae_hiera_large_224",
    "mae_hiera_micro_8x64",
    "mae_hiera_small_224",
    "mae_hiera_tiny_224",
]

# Where the names above are defined. They are imported when they are asked for, since that takes
# seconds: tools import `hiera_video.utils.cli` first of all.
_MODULES = (
    "models.hiera",
    "models.hiera_mae",
    "models.load",
    "inference.predictor",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = vars(importlib.import_module(f"hiera_video.{module}"))
            if name in found:
                globals()[name] = found[name]
                return found[name]
    if name in ("config", "data", "models", "utils"):  # `hiera_video.models` without its own import
        return importlib.import_module(f"hiera_video.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
