"""The authors' published weights: their names, where they are found, and how they are loaded.

Source: https://github.com/facebookresearch/hiera (model zoo). The weights' licence is CC-BY-NC 4.0.
"""

import os
from typing import Any

from torch import nn

from hiera_video.checkpoints import matching
from hiera_video.checkpoints.decoder_heads import saved_heads
from hiera_video.checkpoints.matching import LoadSummary
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest

_KEY = "checkpoint"  # what messages call it: the argument of the model functions
_IMAGE_SIZES = ("tiny", "small", "base", "base_plus", "large", "huge")
_VIDEO_SIZES = ("base", "base_plus", "large", "huge")
_ENDINGS = (".pth", ".pyth", ".pt", ".safetensors")


def published_files(model_name: str) -> dict[str, str]:
    """Return the published checkpoints of a model: file by name, the default first; {} if none.

    Classifiers were pretrained as autoencoders and fine-tuned on the same data, ImageNet-1K
    ("in1k") or Kinetics-400 ("k400"), and can start from the pretrained weights alone too.
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
    model: nn.Module, model_name: str, checkpoint: str | os.PathLike[str] | None = None
) -> LoadSummary:
    """Load a published checkpoint, a file or a URL into a model; return what came of it.

    `checkpoint` is a name of `published_files(model_name)` (None: the default one), a path or a
    URL. A name is looked for in the folder that HIERA_VIDEO_WEIGHTS names (also as .safetensors),
    then in the cache of downloads, then fetched. An autoencoder's weights leave a classifier's norm
    and head fresh, and another number of classes its head.

    Raises:
        UserError: there is no such checkpoint, it cannot be had or is of another model.
    """
    path, content = read_published(model_name, checkpoint)
    return start_from_published(model, content, path=path)


def read_published(
    model_name: str, checkpoint: str | os.PathLike[str] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return path or URL and content of what `load_published` would load.

    Raises:
        UserError: there is no such checkpoint, or it cannot be had or is not what its name says.
    """
    files = published_files(model_name)
    name = os.fspath(checkpoint) if checkpoint is not None else next(iter(files), "")
    if name not in files:
        _refuse_unknown(name, model_name)
        return name, matching.read_checkpoint(name, key=_KEY)
    url = matching.HIERA_URL + files[name]
    path = matching.copy_of_published(url) or url
    content = matching.read_checkpoint(path, key=_KEY)
    is_autoencoder = model_name.startswith("mae_")
    tell_tale = "mask_token" if is_autoencoder else "head.projection.weight"
    if tell_tale not in matching.model_state(content) and (is_autoencoder or "_ft_" in name):
        raise UserError(
            f"{_KEY}: {path!r} must be {name!r} of {model_name}, but has no {tell_tale}. Try "
            f"downloading {url} again."
        )
    return path, content


def start_from_published(model: nn.Module, content: dict[str, Any], *, path: str) -> LoadSummary:
    """Load what `read_published` returned; log a warning if the decoder's heads are in doubt.

    Raises:
        UserError: it is of another model; nothing was loaded.
    """
    there = saved_heads(content)
    decoder: Any = getattr(model, "decoder_blocks", None)
    if decoder and there not in (None, here := decoder[0].attn.num_heads):
        raise UserError(
            f"decoder_num_heads must be {there}, as in the run that wrote {path!r}, got {here}. "
            f"Try decoder_num_heads={there}."
        )
    classifier = getattr(getattr(model, "head", None), "projection", None)
    summary = matching.start_from_content(
        model,
        content,
        path=path,
        key=_KEY,
        num_classes=getattr(classifier, "out_features", None),
    )
    matching.warn(summary, path)
    return summary


def _refuse_unknown(name: str, model_name: str) -> None:
    """Raise a UserError for what is neither a published name nor looks like a path or URL."""
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
