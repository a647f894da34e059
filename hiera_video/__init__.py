"""hiera_video: video action recognition around Hiera (Ryali et al., ICML 2023)."""

from hiera_video.models.hiera import (
    Hiera,
    hiera_base_16x224,
    hiera_base_plus_16x224,
    hiera_huge_16x224,
    hiera_large_16x224,
    hiera_micro_8x64,
)

__version__ = "0.1.0"

__all__ = [
    "Hiera",
    "__version__",
    "hiera_base_16x224",
    "hiera_base_plus_16x224",
    "hiera_huge_16x224",
    "hiera_large_16x224",
    "hiera_micro_8x64",
]
