"""Check everything that can be checked about a run before anything is written."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.checkpoints.matching import refuse_misfits, refuse_start
from hiera_video.checkpoints.run_folder import last_checkpoint
from hiera_video.config import Config
from hiera_video.data.build import check_data_settings, read_class_names, read_records
from hiera_video.data.records import VideoRecord
from hiera_video.data.shards.members import file_behind
from hiera_video.engine.checkpoint import refuse_other_classes
from hiera_video.engine.compiling import refuse_missing_compiler
from hiera_video.engine.test import weights_to_test
from hiera_video.models.build import build_model, check_masks
from hiera_video.models.parts.scores import count_cuda_devices
from hiera_video.utils import dist, io
from hiera_video.utils.errors import UserError

T = TypeVar("T")

_NO_LIST = re.compile(r"^DATA\.PATH_TO_DATA_DIR must be the folder of (.+?) \(")


def preflight(cfg: Config) -> tuple[torch.device, dict[str, Sequence[VideoRecord]]]:
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

    device = collect(device_of_process, cfg.NUM_GPUS)
    collect(refuse_unequal_batches, cfg)
    collect(check_model, cfg)
    if cfg.TRAIN.ENABLE and device is not None:
        collect(refuse_missing_compiler, cfg.MODEL.COMPILE, device.type)
    collect(check_data_settings, cfg)
    collect(refuse_missing_checkpoints, cfg)
    if not cfg.TRAIN.ENABLE:
        collect(weights_to_test, cfg)
    elif not cfg.TRAIN.AUTO_RESUME and not dist.was_restarted():
        collect(refuse_earlier_checkpoints, cfg)
    before = len(problems)
    records = {split: collect(read_records, cfg, split) for split in splits(cfg)}
    lists = [match[1] for p in problems[before:] if (match := _NO_LIST.match(p))]
    if lists and not any(records.values()) and len(lists) == len(problems) - before:
        # A wrong folder lacks every list: one message names them all.
        problems[before:] = [problems[before].replace(lists[0], ", ".join(lists), 1)]
    for split, found in records.items():
        collect(read_class_names, cfg, split)
        collect(refuse_missing_videos, split, found or [])
    if records.get("train"):
        collect(refuse_idle_processes, len(records["train"] or []))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    assert device is not None
    return device, {split: found for split, found in records.items() if found is not None}


def check_model(cfg: Config) -> None:
    """Build the model without memory, and check that masks and the given weights fit it.

    A URL is fetched here, so that a run that cannot have its weights makes no OUTPUT_DIR.
    """
    with torch.device("meta"):
        model = build_model(cfg)
    check_masks(cfg, model)
    path, key = cfg.TRAIN.CHECKPOINT_FILE_PATH, "TRAIN.CHECKPOINT_FILE_PATH"
    starts = cfg.TRAIN.ENABLE and last_checkpoint(cfg.OUTPUT_DIR) is None
    if starts and _is_present(path):
        content = read_checkpoint(path, key=key, mmap=True)
        classes = cfg.MODEL.NUM_CLASSES if cfg.TASK == "classify" else None
        refuse_start(model, content, path=path, key=key, num_classes=classes)
    path, key = cfg.TEST.CHECKPOINT_FILE_PATH, "TEST.CHECKPOINT_FILE_PATH"
    if cfg.TEST.ENABLE and _is_present(path):
        content = read_checkpoint(path, key=key)
        refuse_misfits(model, content, path=path, key=key)
        refuse_other_classes(content, read_class_names(cfg, "test"), path, key=key)


def _is_present(path: str) -> bool:
    return bool(path) and (io.is_url(path) or io.is_file(path) or distributed.is_folder(path))


def refuse_missing_checkpoints(cfg: Config) -> None:
    """Raise a UserError if a key names a checkpoint that is neither a local file nor a URL."""
    for key, path in (
        ("TRAIN.CHECKPOINT_FILE_PATH", cfg.TRAIN.CHECKPOINT_FILE_PATH),
        ("TEST.CHECKPOINT_FILE_PATH", cfg.TEST.CHECKPOINT_FILE_PATH),
    ):
        if path and not _is_present(path):
            what = "is a folder" if io.is_dir(path) else "does not exist"
            raise UserError(
                f"{key} must be a checkpoint file or a URL, got {path!r}, which {what}."
            )


def refuse_earlier_checkpoints(cfg: Config) -> None:
    """Raise a UserError if a new run would mix its checkpoints with those of another run."""
    if last := last_checkpoint(cfg.OUTPUT_DIR):
        raise UserError(
            f"OUTPUT_DIR must hold no checkpoints where TRAIN.AUTO_RESUME is False, got {last!r}. "
            "Try another OUTPUT_DIR."
        )


def refuse_missing_videos(split: str, records: Sequence[VideoRecord]) -> None:
    """Raise a UserError if none of ten videos, spread over the list, exists: a wrong folder."""
    some = records[:: max(len(records) // 10, 1)][:10]
    files = [file_behind(record.path) for record in some]
    if some and not any(io.is_url(file) or io.exists(file) for file in files):
        others = len(some) - 1
        also = f", nor do{'es' * (others == 1)} {others} other{'s' * (others > 1)} tried"
        raise UserError(
            f"the videos of the {split} split are not where its list says: {some[0].path!r} does "
            f"not exist{also * (others > 0)}. Try DATA.PATH_PREFIX."
        )


def splits(cfg: Config) -> list[str]:
    """Return the splits that the run reads."""
    if cfg.TASK == "ssl":
        return ["train"]  # pixels have no labels to validate by
    return ["train", "val"] * cfg.TRAIN.ENABLE + ["test"] * cfg.TEST.ENABLE


def device_of_process(num_gpus: int) -> torch.device:
    """Return the CPU for 0 GPUs, else this process's CUDA device.

    Raises:
        UserError: there is no CUDA device, or fewer than there are processes.
    """
    if num_gpus == 0:
        return torch.device("cpu")
    present = count_cuda_devices()
    if not present:
        raise UserError(
            f"NUM_GPUS must be 0 without a CUDA device, got {num_gpus}. Try NUM_GPUS 0 (the CPU)."
        )
    wanted = dist.local_rank() + 1 if dist.in_group() else num_gpus
    if wanted > present:
        raise UserError(
            f"NUM_GPUS must be at most the {present} CUDA devices of this machine, got {wanted}. "
            f"Try NUM_GPUS {present}."
        )
    return torch.device("cuda", dist.local_rank())


def refuse_unequal_batches(cfg: Config) -> None:
    """Raise a UserError if NUM_GPUS or the batch does not fit the processes of a machine."""
    num_processes = dist.local_world_size()
    if num_processes == 1:
        return
    if cfg.NUM_GPUS not in (0, 1, num_processes):
        raise UserError(
            f"NUM_GPUS must be the number of processes on a machine ({num_processes}), or 0 for "
            f"the CPU, got {cfg.NUM_GPUS}. Try NUM_GPUS {num_processes}."
        )
    part = -(-cfg.TRAIN.BATCH_SIZE // num_processes)
    if cfg.TRAIN.ENABLE and cfg.TRAIN.BATCH_SIZE % num_processes:
        raise UserError(
            f"TRAIN.BATCH_SIZE must be divisible by the {num_processes} processes of a machine, "
            f"which split it evenly, got {cfg.TRAIN.BATCH_SIZE}. Try TRAIN.BATCH_SIZE "
            f"{part * num_processes}."
        )


def refuse_idle_processes(num_videos: int) -> None:
    """Raise a UserError if there are fewer training videos than processes."""
    if num_videos < dist.world_size():
        raise UserError(
            f"the number of processes must be at most that of the training videos, {num_videos}, "
            f"got {dist.world_size()}. Try fewer processes."
        )
