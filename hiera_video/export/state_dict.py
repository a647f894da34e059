"""Export a checkpoint's weights as a plain state dict, without optimizer, config and position."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save

from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.checkpoints.unwrap import unwrap
from hiera_video.utils import disk
from hiera_video.utils.errors import UserError
from hiera_video.utils.outputs import refuse_unwritable

ENDINGS = (".pyth", ".pth", ".pt", ".safetensors")


def export_checkpoint(path: str, out: str, *, ema: bool) -> str:
    """Write the weights of a checkpoint to `out`; return a line that says what was written.

    `ema` selects the averaged weights, which a run with TRAIN.EMA_DECAY also saves.

    Raises:
        UserError: there is no such checkpoint, it has no averaged weights, or `out` has the wrong
            ending or cannot be written.
    """
    if not out.endswith(ENDINGS):
        raise UserError(f"OUT must end in {', '.join(ENDINGS)}, got {out!r}. Try weights.pyth.")
    refuse_unwritable(out, key="OUT")
    content = read_checkpoint(path, key="CHECKPOINT")
    if ema and not content.get("ema_state"):
        raise UserError(
            f"--ema must go with the checkpoint of a run with TRAIN.EMA_DECAY, got {path!r}, which "
            "has no averaged weights. Try without --ema."
        )
    state, how = _state(content, ema=ema)
    if not state:
        raise UserError(f"CHECKPOINT: {path!r} holds no tensors under 'model_state'.")
    try:
        if out.endswith(".safetensors"):
            text = save(state, metadata={"format": "pt"})
            disk.write_atomic(out, lambda file: file.write(text))
        else:
            disk.write_atomic(out, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(f"OUT: {out!r} could not be written ({cause}).") from None
    num_parameters = sum(value.numel() for value in state.values())
    return (
        f"{'averaged weights' if ema else 'weights'} of {path}: {len(state)} tensors, "
        f"{num_parameters / 1e6:.2f} M numbers, {os.path.getsize(out) / 1e6:.1f} MB in {out}"
        f"{f' ({how})' * bool(how)}"
    )


def _state(content: Mapping[str, Any], *, ema: bool) -> tuple[dict[str, torch.Tensor], str]:
    """Return the weights; for a file of another program, also say how they were found.

    Names in a run's own checkpoint stay as they are: its model may wrap a Hiera.
    """
    if "model_state" in content:
        found = content["ema_state" if ema else "model_state"]
        state, how = {n: v for n, v in found.items() if isinstance(v, torch.Tensor)}, ""
    else:
        state, how, _ = unwrap(content)
    return {name: value.contiguous() for name, value in state.items()}, how
