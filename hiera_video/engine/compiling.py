"""torch.compile for training: the encoder's blocks, or the whole model with its backward pass."""

import functools
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from hiera_video.utils.errors import UserError

# What MODEL.COMPILE compiles, by the method of the model.
METHODS = {"encoder": "run_blocks", "step": "forward"}


def refuse_missing_compiler(what: str, device_type: str) -> None:
    """Raise a UserError if MODEL.COMPILE needs what this machine lacks.

    "cuda" needs Triton, and "cpu" a C++ compiler: $CXX, g++ or clang++.
    """
    if what == "none":
        return
    if device_type == "cuda":
        missing = "" if find_spec("triton") else "the package triton"
    else:
        names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
        found = any(shutil.which(name) for name in names)
        missing = "" if found else f"a C++ compiler ({' or '.join(names)})"
    if missing:
        raise UserError(
            f"MODEL.COMPILE must be none without {missing}, got {what!r}. Try MODEL.COMPILE none, "
            "or install it."
        )


def compile_for_training(model: nn.Module, what: str) -> None:
    """Compile a part of the model when training first uses it; `what` is a key of METHODS.

    The model keeps its state-dict keys and draws the same random numbers as uncompiled. Evaluation
    runs uncompiled, since its batches have many sizes. "none" does nothing.

    Raises:
        UserError: the model has no such part; later, in the first step: it cannot be compiled.
    """
    if what == "none":
        return
    plain = getattr(model, METHODS[what], None)
    if plain is None:
        raise UserError(
            f"MODEL.COMPILE must be none or step for a {type(model).__name__}, which has no "
            f"encoder to compile alone, got {what!r}. Try MODEL.COMPILE step."
        )
    setattr(model, METHODS[what], _compiled(model, plain))


def _compiled(model: nn.Module, plain: Callable[..., Any]) -> Callable[..., Any]:
    # Importing the compiler takes seconds, so import it only when compiling.
    from torch._dynamo.exc import BackendCompilerFailed

    # Take random numbers from PyTorch's generator, so that drop paths are as uncompiled.
    fast = torch.compile(plain, options={"fallback_random": True})

    @functools.wraps(plain)
    def call(*arguments: Any, **settings: Any) -> Any:
        if not (model.training and torch.is_grad_enabled()):
            return plain(*arguments, **settings)
        try:
            return fast(*arguments, **settings)
        except BackendCompilerFailed as error:
            reason = next((line for line in str(error).splitlines() if "rror" in line), str(error))
            raise UserError(
                f"MODEL.COMPILE: the model could not be compiled ({reason.strip()[:200]}). Try "
                "MODEL.COMPILE none, or a compiler that works, as $CXX."
            ) from None

    return call
