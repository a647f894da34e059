"""From a config to a run: everything that can be checked is checked before anything is written."""

import os
import platform
from collections.abc import Callable
from typing import TypeVar

import torch

from hiera_video import __version__
from hiera_video.config import Config, to_yaml
from hiera_video.data.build import read_records
from hiera_video.data.records import VideoRecord
from hiera_video.engine.evaluate import Evaluation
from hiera_video.engine.logging import RunLog
from hiera_video.engine.test import test, weights_to_test
from hiera_video.engine.train import train
from hiera_video.models.build import build_model
from hiera_video.utils import io
from hiera_video.utils.errors import UserError

T = TypeVar("T")


def launch(cfg: Config) -> Evaluation | None:
    """Train if TRAIN.ENABLE, then test if TEST.ENABLE; return the test's result.

    Raises:
        UserError: anything the user can put right, before the first step where possible.
    """
    device, records = preflight(cfg)
    prepare_output_dir(cfg)
    log = RunLog(cfg.OUTPUT_DIR, tensorboard=cfg.TENSORBOARD.ENABLE and cfg.TRAIN.ENABLE)
    try:
        log.line(f"hiera_video {__version__}, torch {torch.__version__}, {platform.platform()}")
        log.line(f"config (saved as {config_file(cfg)}):\n{to_yaml(cfg)}")
        if cfg.TRAIN.ENABLE:
            train(cfg, records, device, log)
        return test(cfg, records, device, log) if cfg.TEST.ENABLE else None
    except UserError as error:
        # The tool shows it on the console; the log file should have it too.
        log.logger.error("stopped: %s", error, extra={"file_only": True})
        raise
    finally:
        log.close()


def preflight(cfg: Config) -> tuple[torch.device, dict[str, list[VideoRecord]]]:
    """Check device, model, checkpoints and data lists together; return device and records.

    Raises:
        UserError: all that is wrong, a line each.
    """
    problems: list[str] = []

    def collect(check: Callable[..., T], *arguments: object) -> T | None:
        try:
            return check(*arguments)
        except UserError as error:
            problems.append(str(error))
            return None

    device = collect(pick_device, cfg.NUM_GPUS)
    collect(build_on_meta, cfg)
    collect(refuse_missing_checkpoints, cfg)
    if not cfg.TRAIN.ENABLE:
        collect(weights_to_test, cfg)
    records = {split: collect(read_records, cfg, split) for split in splits(cfg)}
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    assert device is not None
    return device, {split: found for split, found in records.items() if found is not None}


def build_on_meta(cfg: Config) -> None:
    """Build the model without memory, to see that it can be built."""
    with torch.device("meta"):
        build_model(cfg)


def refuse_missing_checkpoints(cfg: Config) -> None:
    """Raise a UserError for a checkpoint that a key names and that is no local file or URL."""
    for key, path in (
        ("TRAIN.CHECKPOINT_FILE_PATH", cfg.TRAIN.CHECKPOINT_FILE_PATH),
        ("TEST.CHECKPOINT_FILE_PATH", cfg.TEST.CHECKPOINT_FILE_PATH),
    ):
        if path and "://" not in path and not io.is_file(path):
            raise UserError(f"{key} must be a checkpoint file, got {path!r}, which is none.")


def splits(cfg: Config) -> list[str]:
    """Return the splits that the run reads."""
    return ["train", "val"] * cfg.TRAIN.ENABLE + ["test"] * cfg.TEST.ENABLE


def pick_device(num_gpus: int) -> torch.device:
    """Return the CPU for 0 GPUs, else the first CUDA device.

    Raises:
        UserError: there is no CUDA device.
    """
    if num_gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"NUM_GPUS must be 0 without a CUDA device, got {num_gpus}. Try NUM_GPUS 0 (the CPU)."
        )
    return torch.device("cuda", 0)


def config_file(cfg: Config) -> str:
    """Return where the resolved config is saved; a test alone leaves the training's untouched."""
    name = "config.yaml" if cfg.TRAIN.ENABLE else "config_test.yaml"
    return os.path.join(cfg.OUTPUT_DIR, name)


def prepare_output_dir(cfg: Config) -> None:
    """Make OUTPUT_DIR and save the resolved config in it.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        io.make_dirs(cfg.OUTPUT_DIR)
        io.write_atomic(config_file(cfg), lambda file: file.write(to_yaml(cfg).encode()))
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR must be a folder that can be written to, got {cfg.OUTPUT_DIR!r} "
            f"({error.strerror or error}). Try another one."
        ) from None
