"""Find a checkpoint decoder's number of attention heads, which its weights do not show."""

import os
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from hiera_video.checkpoints.saved_config import saved_settings

# The authors' files have no config. Their code builds every decoder with this number of heads.
_PUBLISHED_HEADS = 16
_PUBLISHED = re.compile(r"mae_hiera_(tiny|small|base|base_plus|large|huge)_(16x)?224")


def saved_heads(content: Mapping[str, Any]) -> int | None:
    """Return MASK.DECODER_NUM_HEADS of the config in a run's checkpoint, None if absent."""
    heads = saved_settings(content.get("cfg")).get("MASK.DECODER_NUM_HEADS")
    return heads if isinstance(heads, int) else None


def heads_there(content: Mapping[str, Any], path: str) -> int | None:
    """Return the number of attention heads of a checkpoint's decoder, None if unknown.

    `content` is the result of `read_checkpoint` for `path`. The authors' files are recognised by
    their name.
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    return saved_heads(content) or (_PUBLISHED_HEADS if _PUBLISHED.fullmatch(stem) else None)


def compare_heads(model: nn.Module, there: int | None) -> tuple[str, ...]:
    """Return a warning if the decoder of `model` has another number of heads than the file.

    With another number of heads the weights load, but the predictions are wrong. `there` is the
    file's number; if it is None (unknown), the result is a warning too. A model without a decoder
    gives no warning.
    """
    decoder: Any = getattr(model, "decoder_blocks", None)
    if not decoder or decoder[0].attn.num_heads == there:
        return ()
    here = decoder[0].attn.num_heads
    known = (
        f"the decoder has {here} attention heads here and had {there} there"
        if there is not None
        else f"the file does not say how many attention heads its decoder had, and here it has "
        f"{here} (in the authors' published files, {_PUBLISHED_HEADS})"
    )
    return (
        f"{known}. With another number the weights load and the predictions are wrong: set "
        "MASK.DECODER_NUM_HEADS (in Python, decoder_num_heads) to that of the file.",
    )
