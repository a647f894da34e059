"""Load a trained model together with the config of its clips and the names of its classes."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hiera_video.checkpoints.files import model_state, read_checkpoint
from hiera_video.checkpoints.hub import is_pretrained_folder
from hiera_video.checkpoints.matching import num_classes_of
from hiera_video.checkpoints.published import published_files, read_published
from hiera_video.config import Config, ConfigError, load_config, load_saved_config
from hiera_video.data.class_names import (
    are_reordered,
    contradiction,
    known_lists,
    parse_names,
    published_names,
)
from hiera_video.inference.exported import read_folder
from hiera_video.models import hiera, hiera_mae
from hiera_video.models.build import build_trained
from hiera_video.models.load import build_with_weights
from hiera_video.models.parts.scores import pick_device
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import find_function, public_functions

_KEY = "checkpoint"
_MODEL = "hiera_base_16x224"
_HEAD = "head.projection.weight"


@dataclass(frozen=True, slots=True)
class Trained:
    """A model in evaluation mode on `device`, the config of its clips, and its class names.

    `class_names` is empty if the classes have no names; an autoencoder has none.
    """

    model: nn.Module
    cfg: Config
    class_names: tuple[str, ...]
    device: torch.device


def load_trained(
    checkpoint: str | os.PathLike[str] | None,
    *,
    model: str | None = None,
    cfg: Config | None = None,
    class_names: str | Sequence[str] | None = None,
    device: str | torch.device | None = None,
    classifier: bool = True,
) -> Trained:
    """Load a checkpoint with what its run has saved in it.

    Without `model`, the checkpoint is a run's own, or a folder of tools/export.py; `cfg` stands in
    for the config that it lacks. With `model`, a function such as "hiera_base_16x224", it is a
    published name, a file or a URL as in `load_model`, and its clips are the published ones: 16x4
    frames, 5 x 3 views, mean 0.45 and standard deviation 0.225 (the authors' notebook).
    `class_names` (names, a file with one a line, or one of `known_lists()`) stand in for those of
    the checkpoint. Without `classifier`, an autoencoder will do.

    Raises:
        UserError: no such checkpoint, model or device, one without a classifier, or class names
            that are more or fewer than its classes.
    """
    place = pick_device(device)
    if model is not None:
        found = _named(model, checkpoint, cfg, classifier=classifier)
    else:
        found = _of_run(checkpoint, cfg, classifier=classifier)
    if class_names is not None:
        names = _given_names(class_names)
        _check_number(names, found.model, "class_names")
        if are_reordered(names, found.class_names):
            raise UserError(
                "class_names must be in the order of the classifier's outputs, got "
                f"others: {contradiction(found.class_names, names)}. Try without."
            )
        found = replace(found, class_names=names)
    found.model.to(place).eval()
    return replace(found, device=place)


def saved_config(content: dict[str, Any], path: str, *, key: str = _KEY) -> Config | None:
    """Return the config that a run has saved in its checkpoint, None if there is none.

    Raises:
        UserError: it is damaged, or one of another version, with keys that are no more.
    """
    text = content.get("cfg")
    if not isinstance(text, str):
        return None
    try:
        return load_saved_config(text, "config.yaml")
    except ConfigError as error:
        raise UserError(
            f"{key}: the config in {path!r} cannot be used any more "
            f"({error.problems[0]}). Try giving --cfg."
        ) from None


def _of_run(
    checkpoint: str | os.PathLike[str] | None, cfg: Config | None, *, classifier: bool
) -> Trained:
    path = os.fspath(checkpoint) if checkpoint is not None else ""
    if not path:
        raise UserError(
            f"{_KEY} must be given, a file of a run such as output/checkpoints/"
            f"checkpoint_best.pyth. Try --model {_MODEL} (in Python, model={_MODEL!r}) for "
            "published weights."
        )
    if any(path in published_files(model) for model in public_functions(hiera)):
        raise UserError(
            f"{_KEY} {path!r} must go with the model that it is of. Try --model {_MODEL} "
            f"(in Python, model={_MODEL!r})."
        )
    if is_pretrained_folder(path):
        return _of_folder(path, cfg, classifier=classifier)
    content = read_checkpoint(path, key=_KEY)
    state = model_state(content)
    cfg = cfg or saved_config(content, path)
    if classifier and ((cfg and cfg.TASK == "ssl") or "mask_token" in state):
        raise _no_classifier(path)
    if cfg is None:
        raise UserError(
            f"{_KEY}: {path!r} does not say of which model it is. Try giving --model, such as "
            f"{_MODEL}, or --cfg, the YAML file it was trained with."
        )
    if cfg.TASK == "ssl":  # which no test was configured for
        cfg = replace(cfg, DATA=replace(cfg.DATA, TEST_CROP_SIZE=cfg.DATA.TRAIN_CROP_SIZE))
    model = build_trained(cfg, path, content, key=_KEY)
    saved = content.get("class_names")
    names = tuple(str(name) for name in saved) if isinstance(saved, (list, tuple)) else ()
    if names:
        _check_number(names, model, f"{_KEY}: the class names in {path!r}")
    return Trained(model, cfg, names, torch.device("cpu"))


def _of_folder(path: str, cfg: Config | None, *, classifier: bool) -> Trained:
    model, cfg, names = read_folder(path, cfg)
    if classifier and (cfg.TASK == "ssl" or num_classes_of(model) is None):
        raise _no_classifier(path)
    if names:
        _check_number(names, model, f"{_KEY}: the class names in {path!r}")
    return Trained(model, cfg, names, torch.device("cpu"))


def _named(
    name: str,
    checkpoint: str | os.PathLike[str] | None,
    cfg: Config | None,
    *,
    classifier: bool,
) -> Trained:
    room = hiera_mae if name.startswith("mae_") and not classifier else hiera
    find_function(room, name, key="model")
    if name.endswith("_224"):  # before its weights are downloaded
        raise UserError(f"model must be a video model, got {name!r}, of images. Try {_MODEL}.")
    if classifier and checkpoint in published_files(name) and "_ft_" not in str(checkpoint):
        raise _no_classifier(str(checkpoint))  # this, too
    path, content = read_published(name, checkpoint)
    head = model_state(content).get(_HEAD)
    if classifier and head is None:
        raise _no_classifier(path)
    model, _ = build_with_weights(name, path, content, {})
    names: tuple[str, ...] = ()
    if num_classes_of(model) == 400 and os.path.splitext(os.path.basename(path))[0] == name:
        names = published_names("kinetics400")
    size: Any = model.input_size
    num_frames, side, _ = size
    clips = ["DATA.NUM_FRAMES", num_frames, "DATA.TRAIN_CROP_SIZE", side]
    clips += ["DATA.TEST_CROP_SIZE", side, "MODEL.MODEL_NAME", name]
    if room is hiera_mae:
        clips += ["TASK", "ssl", "MODEL.ARCH", "hiera_mae", "TEST.ENABLE", False]
    return Trained(
        model, cfg or load_config(None, [str(word) for word in clips]), names, torch.device("cpu")
    )


def _no_classifier(path: str) -> UserError:
    return UserError(
        f"{_KEY} must be a classifier's, got {path!r}: a pretrained autoencoder has no classes to "
        "tell. Try the checkpoint of a fine-tuning run."
    )


def _given_names(given: str | Iterable[str]) -> tuple[str, ...]:
    if not isinstance(given, str):
        return tuple(given)
    if given in known_lists():
        return published_names(given)
    if not io.is_file(given):
        raise UserError(
            f"class_names must be a text file with a name a line, or one of "
            f"{', '.join(known_lists())}, got {given!r}, which is no file."
        )
    try:
        with io.open_file(given) as file:
            return parse_names(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"class_names: {given!r} cannot be read as text ({error}).") from None


def _check_number(names: Sequence[str], model: nn.Module, what: str) -> None:
    number = num_classes_of(model)
    if number is not None and len(names) != number:
        raise UserError(
            f"{what} must be as many as the model's classes, {number}, got {len(names)}."
        )
