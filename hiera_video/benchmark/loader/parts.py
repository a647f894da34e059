"""Time the parts of making a training view, RandAugment's operations among them.

Legend: T frames, H height, W width, C channels.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from hiera_video.config import Config
from hiera_video.data.transforms.crops import random_resized_crop
from hiera_video.data.transforms.pipeline import to_frames, write_pixels
from hiera_video.data.transforms.randaugment import (
    OPERATIONS,
    Operation,
    apply_operation,
    operation_at,
    parse_policy,
)

_FLIP_PROBABILITY = 0.5


def training_parts(cfg: Config, frames_THWC: np.ndarray, *, repeats: int) -> dict[str, float]:
    """Return the expected CPU seconds of each part of one training view, most expensive first.

    `frames_THWC` is a decoded clip, uint8 RGB. A random part counts by its probability: one half
    for a flip. An operation of RandAugment counts by how often it is drawn and applied, at the
    policy's mean magnitude. Seconds are medians of `repeats` runs.
    """
    frames_TCHW = to_frames(frames_THWC)
    low, high = cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE
    narrow, wide = cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE

    def crop() -> torch.Tensor:
        rng = np.random.default_rng(0)
        size = cfg.DATA.TRAIN_CROP_SIZE
        return random_resized_crop(
            frames_TCHW, size=size, scale=(low, high), aspect=(narrow, wide), rng=rng
        )

    crop_TCHW = crop()
    augment = bool(cfg.AUG.ENABLE and cfg.AUG.AA_TYPE)
    planes_TCHW = crop_TCHW.contiguous()
    pixels_THWC = torch.empty(crop_TCHW.permute(0, 2, 3, 1).shape, dtype=torch.uint8)
    parts = {
        "crop and resize": _median_sec(crop, repeats),
        "into the batch": _median_sec(
            lambda: write_pixels(planes_TCHW if augment else crop_TCHW, pixels_THWC), repeats
        ),
    }
    if cfg.DATA.RANDOM_FLIP:
        parts["flip"] = _FLIP_PROBABILITY * _median_sec(lambda: crop_TCHW.flip(-1), repeats)
    if augment:
        parts["into planes"] = _median_sec(lambda: crop_TCHW.contiguous(), repeats)
        parts |= _operations(cfg, planes_TCHW, repeats)
    return dict(sorted(parts.items(), key=lambda part: -part[1]))


def _operations(cfg: Config, planes_TCHW: torch.Tensor, repeats: int) -> dict[str, float]:
    policy = parse_policy(cfg.AUG.AA_TYPE)
    fill = [255.0 * channel for channel in cfg.DATA.MEAN]
    times_per_view = policy.num_operations * policy.probability / len(OPERATIONS)
    parts = {}
    for name in OPERATIONS:
        operation = operation_at(name, policy, policy.magnitude, 1)

        def run(operation: Operation = operation) -> torch.Tensor:
            return apply_operation(planes_TCHW, operation, fill=fill)

        parts[f"RandAugment: {name}"] = times_per_view * _median_sec(run, repeats)
    return parts


def _median_sec(run: Callable[[], object], repeats: int) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        begin_sec = time.process_time()
        run()
        seconds.append(time.process_time() - begin_sec)
    return statistics.median(seconds)
