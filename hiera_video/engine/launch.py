"""From a config to a run: everything that can be checked is checked before anything is written."""

import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from hiera_video.checkpoints import distributed
from hiera_video.checkpoints.matching import read_checkpoint, refuse_misfits
from hiera_video.checkpoints.run_folder import checkpoint_folder, last_checkpoint
from hiera_video.config import Config, to_yaml
from hiera_video.data.build import check_data_settings, read_class_names, read_records
from hiera_video.data.decoders import describe_backend
from hiera_video.data.records import VideoRecord
from hiera_video.data.shards.members import file_behind
from hiera_video.engine.checkpoint import refuse_other_classes
from hiera_video.engine.compiling import refuse_missing_compiler
from hiera_video.engine.evaluate import Evaluation
from hiera_video.engine.parallel.processes import process_group, run_processes
from hiera_video.engine.run_log import LOGGER_NAME, RunLog
from hiera_video.engine.signals import StopSignals
from hiera_video.engine.test import result_files, test, weights_to_test
from hiera_video.engine.train import train
from hiera_video.models.build import build_model, check_masks
from hiera_video.utils import dist, io
from hiera_video.utils.errors import UserError
from hiera_video.utils.folder_lock import FolderLock
from hiera_video.utils.outputs import refuse_unwritable
from hiera_video.version import __version__

T = TypeVar("T")


def launch(cfg: Config) -> Evaluation | None:
    """Train if TRAIN.ENABLE, then test if TEST.ENABLE; return the test's result.

    With NUM_GPUS above 1 it runs in so many processes, unless this is one of torchrun's already.

    Raises:
        UserError: anything the user can put right, before the first step where possible.
    """
    if cfg.NUM_GPUS > 1 and not dist.is_launched():
        pick_device(cfg.NUM_GPUS)
        return run_processes(launch, cfg, num_processes=cfg.NUM_GPUS)
    with process_group(cpu_only=cfg.NUM_GPUS == 0, timeout_sec=cfg.DIST.TIMEOUT_SEC):
        device, records = preflight(cfg)
        # Before the log is opened, which may be another run's.
        with hold_output_dir(cfg) as lock:
            log = open_output_dir(cfg)
            # While it trains, train's own take the signals.
            stop = StopSignals(log.line, nothing_to_save="nothing was to be saved")
            with told_in_log(log), stop:
                describe_run(cfg, log)
                validation = train(cfg, records, device, log, lock) if cfg.TRAIN.ENABLE else None
                result = test(cfg, records, device, log, stop) if cfg.TEST.ENABLE else None
                if validation is not None:
                    # Only now: bad videos of a validation do not stop a training.
                    validation.refuse_bad(cfg.DATA.MAX_BAD_FRACTION, "val")
                return result


def describe_run(cfg: Config, log: RunLog) -> None:
    """Log versions, processes and config."""
    log.line(f"hiera_video {__version__}, torch {torch.__version__}, {platform.platform()}")
    if dist.world_size() > 1:
        machines = dist.num_machines()
        log.line(f"{dist.world_size()} processes on {machines} machine{'s' * (machines > 1)}")
    log.line(f"config:\n{to_yaml(cfg)}")
    log.line(describe_backend(cfg.DATA.DECODING_BACKEND))


@contextmanager
def told_in_log(log: RunLog) -> Iterator[None]:
    """Put why a run stopped into its log too, and close it."""
    try:
        yield
    except UserError as error:
        # The tool shows it on the console; the log file should have it too.
        log.logger.error("stopped: %s", error, extra={"file_only": True})
        raise
    finally:
        log.close()


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

    device = collect(pick_device, cfg.NUM_GPUS)
    collect(refuse_unequal_shares, cfg)
    collect(check_model, cfg)
    if cfg.TRAIN.ENABLE and device is not None:
        collect(refuse_missing_compiler, cfg.MODEL.COMPILE, device.type)
    collect(check_data_settings, cfg)
    collect(refuse_missing_checkpoints, cfg)
    if not cfg.TRAIN.ENABLE:
        collect(weights_to_test, cfg)
    elif not cfg.TRAIN.AUTO_RESUME and not dist.was_restarted():
        collect(refuse_earlier_checkpoints, cfg)
    records = {split: collect(read_records, cfg, split) for split in splits(cfg)}
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
    """Build the model without memory, to see that it can be built and what belongs to it fits it.

    That is the masks of TASK ssl, and the weights to test if they are a local file: a URL is
    fetched when its turn comes.
    """
    with torch.device("meta"):
        model = build_model(cfg)
    check_masks(cfg, model)
    path, key = cfg.TEST.CHECKPOINT_FILE_PATH, "TEST.CHECKPOINT_FILE_PATH"
    if cfg.TEST.ENABLE and (io.is_file(path) or distributed.is_folder(path)):
        content = read_checkpoint(path, key=key)
        refuse_misfits(model, content, path=path, key=key)
        refuse_other_classes(content, read_class_names(cfg, "test"), path, key=key)


def refuse_missing_checkpoints(cfg: Config) -> None:
    """Raise a UserError for a checkpoint that a key names and that is no local file or URL."""
    for key, path in (
        ("TRAIN.CHECKPOINT_FILE_PATH", cfg.TRAIN.CHECKPOINT_FILE_PATH),
        ("TEST.CHECKPOINT_FILE_PATH", cfg.TEST.CHECKPOINT_FILE_PATH),
    ):
        if path and not (io.is_url(path) or io.is_file(path) or distributed.is_folder(path)):
            what = "is a folder" if io.is_dir(path) else "does not exist"
            raise UserError(
                f"{key} must be a checkpoint file or a URL, got {path!r}, which {what}."
            )


def refuse_earlier_checkpoints(cfg: Config) -> None:
    """Raise a UserError if a run that starts anew would mix its checkpoints with another's."""
    if last := last_checkpoint(cfg.OUTPUT_DIR):
        raise UserError(
            f"OUTPUT_DIR must hold no checkpoints where TRAIN.AUTO_RESUME is False, got {last!r}. "
            "Try another OUTPUT_DIR."
        )


def refuse_missing_videos(split: str, records: Sequence[VideoRecord]) -> None:
    """Raise a UserError if none of ten videos, spread over the list, is there: a wrong folder."""
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


def pick_device(num_gpus: int) -> torch.device:
    """Return the CPU for 0 GPUs, else this process's CUDA device.

    Raises:
        UserError: there is no CUDA device, or fewer than there are processes.
    """
    if num_gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"NUM_GPUS must be 0 without a CUDA device, got {num_gpus}. Try NUM_GPUS 0 (the CPU)."
        )
    present = torch.cuda.device_count()
    wanted = dist.local_rank() + 1 if dist.in_group() else num_gpus
    if wanted > present:
        raise UserError(
            f"NUM_GPUS must be at most the {present} CUDA devices of this machine, got {wanted}. "
            f"Try NUM_GPUS {present}."
        )
    return torch.device("cuda", dist.local_rank())


def refuse_unequal_shares(cfg: Config) -> None:
    """Raise a UserError if the processes of a machine are not what NUM_GPUS and the batch want."""
    num_processes = dist.local_world_size()
    if num_processes == 1:
        return
    if cfg.NUM_GPUS not in (0, 1, num_processes):
        raise UserError(
            f"NUM_GPUS must be the number of processes on a machine ({num_processes}), or 0 for "
            f"the CPU, got {cfg.NUM_GPUS}. Try NUM_GPUS {num_processes}."
        )
    share = -(-cfg.TRAIN.BATCH_SIZE // num_processes)
    if cfg.TRAIN.ENABLE and cfg.TRAIN.BATCH_SIZE % num_processes:
        raise UserError(
            f"TRAIN.BATCH_SIZE must be divisible by the {num_processes} processes of a machine, "
            f"which share it out, got {cfg.TRAIN.BATCH_SIZE}. Try TRAIN.BATCH_SIZE "
            f"{share * num_processes}."
        )


def refuse_idle_processes(num_videos: int) -> None:
    """Raise a UserError if there are fewer training videos than processes."""
    if num_videos < dist.world_size():
        raise UserError(
            f"the number of processes must be at most that of the training videos, {num_videos}, "
            f"got {dist.world_size()}. Try fewer processes."
        )


@contextmanager
def hold_output_dir(cfg: Config) -> Iterator[FolderLock | None]:
    """Make OUTPUT_DIR and keep other trainings out of it; rank 0 does so, for all processes.

    A test alone changes no checkpoint: it needs no lock, and may run beside a training.

    Raises:
        UserError: another run trains there, or it cannot be made or written to.
    """
    lock, problem = None, ""
    if dist.is_main():
        try:
            lock = make_output_dir(cfg)
        except UserError as error:
            problem = str(error)
    if problem := dist.from_main(problem):
        raise UserError(problem)
    try:
        yield lock
    finally:
        if lock:
            lock.release()


def make_output_dir(cfg: Config) -> FolderLock | None:
    """Make OUTPUT_DIR and, for a training, lock it.

    Raises:
        UserError: another run trains there, or it cannot be made or written to.
    """
    folder = cfg.OUTPUT_DIR
    try:
        if io.is_url(folder):
            raise OSError("a URL can only be read")
        if "\0" in folder:
            raise OSError("no path has a NUL character")
        io.make_dirs(checkpoint_folder(folder) if cfg.TRAIN.ENABLE else folder)
        warn = logging.getLogger(LOGGER_NAME).warning
        return FolderLock(folder, warn) if cfg.TRAIN.ENABLE else None
    except OSError as error:
        raise _unwritable(folder, error) from None


def open_output_dir(cfg: Config) -> RunLog:
    """Open the run's log: in rank 0, which writes.

    Raises:
        UserError: OUTPUT_DIR cannot be written to, or a file of the test's results cannot.
    """
    if not dist.is_main():
        return RunLog(None, tensorboard=False)
    try:
        if cfg.TEST.ENABLE:
            keys = ("TEST.SCORES_FILE", "OUTPUT_DIR", "OUTPUT_DIR")
            for key, path in zip(keys, result_files(cfg), strict=True):
                refuse_unwritable(path, key=key)
        return RunLog(cfg.OUTPUT_DIR, tensorboard=cfg.TENSORBOARD.ENABLE and cfg.TRAIN.ENABLE)
    except OSError as error:
        raise _unwritable(cfg.OUTPUT_DIR, error) from None


def _unwritable(folder: str, error: OSError) -> UserError:
    where = f", {error.filename}" if error.filename not in (None, folder) else ""
    return UserError(
        f"OUTPUT_DIR must be a folder that can be written to, got {folder!r} "
        f"({error.strerror or error}{where}). Try another one."
    )
