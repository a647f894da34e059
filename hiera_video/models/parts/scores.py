"""Run a model on clips: the device, the precision, and probabilities from logits.

The test, `Predictor`, features and the web page all use these functions, so they cannot differ.

Shape suffixes: B views of some videos, K classes, CTHW a clip.
"""

import torch
from torch import nn

from hiera_video.utils.errors import UserError


def count_cuda_devices() -> int:
    """Return the number of CUDA devices that this process can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def pick_device(name: str | torch.device | None, *, key: str = "device") -> torch.device:
    """Return the device called `name`; None: the first CUDA device if there is one, else the CPU.

    Raises:
        UserError: this machine has no such device; `key` is what the message calls the setting.
    """
    num_cuda = count_cuda_devices()
    if name is None:
        return torch.device("cuda" if num_cuda else "cpu")
    present = ["cpu", *(f"cuda:{number}" for number in range(num_cuda))]
    try:
        found = torch.device(name)
    except RuntimeError:
        found = None
    full = f"{found.type}:{found.index or 0}" if found and found.type == "cuda" else str(found)
    if found is None or full not in present:
        raise UserError(
            f"{key} must be one of this machine ({', '.join(present)}), got {str(name)!r}. Try "
            f"{present[-1]}."
        )
    return found


def autocast(device: torch.device, *, enabled: bool) -> torch.autocast:
    """Return the bfloat16 autocast context of `device`.

    `enabled` is TRAIN.MIXED_PRECISION. It means the same on every device, in training and after.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def softmax(logits_BK: torch.Tensor) -> torch.Tensor:
    """Return the probabilities of logits, in float32 whatever precision the model computed in."""
    return logits_BK.float().softmax(-1)


@torch.inference_mode()
def probabilities(
    model: nn.Module, clips_BCTHW: torch.Tensor, *, mixed_precision: bool
) -> torch.Tensor:
    """Return a classifier's probabilities for normalised clips: float32 `[B, K]`, on the CPU.

    The model and the clips are on the same device, and the model is in evaluation mode.

    Raises:
        UserError: the model's outputs are not finite.
    """
    with autocast(clips_BCTHW.device, enabled=mixed_precision):
        logits_BK = model(clips_BCTHW)
    probabilities_BK = softmax(logits_BK).cpu()
    if not probabilities_BK.isfinite().all():
        # A comparison with NaN is never true, so the metrics would count such scores as right.
        raise UserError(
            "the model's outputs are not finite: its weights are broken. Try an older checkpoint, "
            "or training with a lower SOLVER.BASE_LR."
        )
    return probabilities_BK
