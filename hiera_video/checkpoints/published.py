"""Find and load the authors' published weights by name.

Source: https://github.com/facebookresearch/hiera (model zoo). The weights' licence is CC-BY-NC 4.0.
"""

import os
from typing import Any

from torch import nn

from hiera_video.checkpoints import files as on_disk
from hiera_video.checkpoints.decoder_heads import saved_heads
from hiera_video.checkpoints.files import model_state, read_checkpoint
from hiera_video.checkpoints.matching import LoadSummary, start_from_weights, warn
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest

_KEY = "checkpoint"  # the name in messages: the argument of the model functions
_IMAGE_SIZES = ("tiny", "small", "base", "base_plus", "large", "huge")
_VIDEO_SIZES = ("base", "base_plus", "large", "huge")
_ENDINGS = (".pth", ".pyth", ".pt", ".safetensors")


def published_files(model_name: str) -> dict[str, str]:
    """Return the published checkpoints of a model: file by name, the default first; {} if none.

    Classifiers were pretrained as autoencoders and fine-tuned on the same data, ImageNet-1K
    ("in1k") or Kinetics-400 ("k400"). A classifier can also start from the pretrained weights.
    """
    body = model_name.removeprefix("mae_")
    images = [f"hiera_{size}_224" for size in _IMAGE_SIZES]
    videos = [f"hiera_{size}_16x224" for size in _VIDEO_SIZES]
    if body not in images + videos:
        return {}
    data = "in1k" if body in images else "k400"
    pretrained = {f"mae_{data}": f"mae_{body}.pth"}
    if model_name != body:
        return pretrained
    return {f"mae_{data}_ft_{data}": f"{body}.pth", **pretrained}


def load_published(
    model: nn.Module,
    model_name: str,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    content: dict[str, Any] | None = None,
) -> LoadSummary:
    """Start a model from a published checkpoint, a file or a URL; log warnings about it.

    `checkpoint` is a name of `published_files(model_name)` (None: the default one), a path or a
    URL. A name is looked up in the folder HIERA_VIDEO_WEIGHTS (also as .safetensors), then in the
    download cache, and then downloaded. `content` is the result of `read_published` for the path
    `checkpoint`, if it was already read. `start_from_weights` documents what has to fit.

    Raises:
        UserError: there is no such checkpoint, it cannot be downloaded, it is of another model, or
            its decoder has another number of heads. Nothing was loaded.
    """
    if content is None:
        path, content = read_published(model_name, checkpoint)
    else:
        path = os.fspath(checkpoint or "")
    there = saved_heads(content)
    decoder: Any = getattr(model, "decoder_blocks", None)
    if decoder and there not in (None, here := decoder[0].attn.num_heads):
        raise UserError(
            f"decoder_num_heads must be {there}, as in the run that wrote {path!r}, got {here}. "
            f"Try decoder_num_heads={there}."
        )
    summary = start_from_weights(model, path, key=_KEY, content=content)
    warn(summary, path)
    return summary


def read_published(
    model_name: str, checkpoint: str | os.PathLike[str] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the path or URL and the content of the checkpoint that `load_published` would load.

    Raises:
        UserError: there is no such checkpoint, it cannot be fetched, or it is not the model that
            its name says.
    """
    files = published_files(model_name)
    name = os.fspath(checkpoint) if checkpoint is not None else next(iter(files), "")
    if name not in files:
        _refuse_unknown(name, model_name)
        return name, read_checkpoint(name, key=_KEY)
    url = on_disk.HIERA_URL + files[name]
    path = on_disk.copy_of_published(url) or url
    content = read_checkpoint(path, key=_KEY)
    is_autoencoder = model_name.startswith("mae_")
    tell_tale = "mask_token" if is_autoencoder else "head.projection.weight"
    if tell_tale not in model_state(content) and (is_autoencoder or "_ft_" in name):
        raise UserError(
            f"{_KEY}: {path!r} must be {name!r} of {model_name}, but has no {tell_tale}. Try "
            f"downloading {url} again."
        )
    return path, content


def _refuse_unknown(name: str, model_name: str) -> None:
    """Raise a UserError unless `name` is a published name or looks like a path or URL."""
    if name and (io.is_url(name) or io.exists(name) or os.sep in name or name.endswith(_ENDINGS)):
        return
    files = published_files(model_name)
    if not files:
        raise UserError(
            f"{_KEY} must be a file or a URL, got {name!r}: no weights of {model_name} are "
            "published. Try the path of a checkpoint of your own."
        )
    raise UserError(
        f"{_KEY} must be one of {', '.join(files)} for {model_name}, a file or a URL, got "
        f"{name!r}.{closest(name, files)}"
    )
