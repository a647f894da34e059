"""Workarounds for dependencies that fail to import as installed; nothing else belongs here.

Each workaround is applied only after the plain import has failed.
"""

import importlib
import sys
from functools import cache
from types import ModuleType

import torch


@cache
def _declare_torchvision_operators() -> torch.library.Library:
    # torchvision's Python part registers fake kernels for these two operators when it is imported.
    # With a CPU-only torch, the binary that defines them cannot be loaded (PyPI's x86 wheel is
    # linked against CUDA), so their schemas must be defined beforehand. Nothing here runs them.
    # The cache keeps the library alive: when a library is collected, its schemas disappear.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


@cache
def import_torchvision() -> ModuleType:
    """Import torchvision even if its binary operators cannot be loaded; return the package.

    After this call, `torchvision.transforms.v2` and the rest of its pure-Python part import as
    usual. If the import fails for another reason, its exception is raised unchanged.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    _declare_torchvision_operators()
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision")


@cache
def import_pytorchvideo(name: str) -> ModuleType:
    """Import `pytorchvideo.<name>` (such as `models`, which imports torchvision) and return it."""
    import_torchvision()
    return importlib.import_module(f"pytorchvideo.{name}")
