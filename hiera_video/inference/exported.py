"""Read a folder of tools/export.py for prediction: its model, its clips, its classes."""

import os
from typing import Any

from hiera_video.checkpoints.hub import FACTS, read_facts
from hiera_video.config import Config, ConfigError, load_config
from hiera_video.models.load import from_pretrained
from hiera_video.models.parts.autoencoder import MaskedAutoencoder
from hiera_video.models.parts.hub_model import HubModel
from hiera_video.utils.errors import UserError

# Facts in the folder about its clips, and the config keys with the same meaning.
_KEYS = {
    "sampling": "DATA.SAMPLING",
    "sampling_rate": "DATA.SAMPLING_RATE",
    "target_fps": "DATA.TARGET_FPS",
    "mean": "DATA.MEAN",
    "std": "DATA.STD",
    "num_clips": "TEST.NUM_TEMPORAL_CLIPS",
    "num_crops": "TEST.NUM_SPATIAL_CROPS",
}


def read_folder(path: str, cfg: Config | None) -> tuple[HubModel, Config, tuple[str, ...]]:
    """Return the model of a folder, the config of its clips, and its class names, () if none.

    `cfg` replaces the facts in the folder. Facts that are missing, as in a folder that
    huggingface_hub wrote, are the published ones: 16x4 frames at the model's size, mean 0.45 and
    standard deviation 0.225.

    Raises:
        UserError: the folder is broken.
    """
    model = from_pretrained(path)
    facts = read_facts(path)
    return model, cfg or _config(path, model, facts), tuple(facts.get("class_names", ()))


def _config(path: str, model: Any, facts: dict[str, Any]) -> Config:
    num_frames, side, _ = (1, *model.input_size)[-3:]  # a clip of one frame is an image
    words: dict[str, Any] = {
        "DATA.NUM_FRAMES": num_frames,
        "DATA.TRAIN_CROP_SIZE": side,
        "DATA.TEST_CROP_SIZE": side,
    }
    if "model_name" in facts:
        words["MODEL.MODEL_NAME"] = facts["model_name"]
    if isinstance(model, MaskedAutoencoder):
        words |= {"TASK": "ssl", "MODEL.ARCH": "hiera_mae", "TEST.ENABLE": False}
    clips = facts.get("clips", {})
    built_for = [model.in_chans, num_frames, *model.input_size[-2:]]
    if clips.get("shape", built_for) != built_for:
        raise UserError(
            f"checkpoint: clips.shape in {os.path.join(path, FACTS)!r} must be that of the model, "
            f"{built_for}, got {clips['shape']}."
        )
    words |= {key: clips[name] for name, key in _KEYS.items() if name in clips}
    try:
        return load_config(None, [str(word) for pair in words.items() for word in pair])
    except ConfigError as error:
        problem = error.problems[0].removeprefix("command line: ")
        for name, key in _KEYS.items():
            problem = problem.replace(key, f"clips.{name}")
        raise UserError(
            f"checkpoint: {os.path.join(path, FACTS)!r} does not say how clips are made "
            f"({problem}). Try giving one by --cfg."
        ) from None
