"""Run a config: check it, lock and open OUTPUT_DIR, train, test."""

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hiera_video.checkpoints.run_folder import checkpoint_folder
from hiera_video.config import Config, to_yaml
from hiera_video.data.decoders import describe_backend
from hiera_video.engine.evaluate import Evaluation
from hiera_video.engine.parallel.processes import process_group, run_processes
from hiera_video.engine.preflight import device_of_process, preflight
from hiera_video.engine.run_log import LOGGER_NAME, RunLog
from hiera_video.engine.signals import StopSignals
from hiera_video.engine.test import result_files, test
from hiera_video.engine.train import train
from hiera_video.utils import dist, io
from hiera_video.utils.errors import UserError
from hiera_video.utils.folder_lock import FolderLock
from hiera_video.utils.outputs import refuse_unwritable
from hiera_video.version import __version__


def launch(cfg: Config) -> Evaluation | None:
    """Train if TRAIN.ENABLE, then test if TEST.ENABLE; return the test's result.

    With NUM_GPUS above 1 it starts that many processes, unless torchrun has started this one.

    Raises:
        UserError: anything that the user can fix, before the first step where possible.
    """
    if cfg.NUM_GPUS > 1 and not dist.is_launched():
        device_of_process(cfg.NUM_GPUS)
        return run_processes(launch, cfg, num_processes=cfg.NUM_GPUS)
    with process_group(cpu_only=cfg.NUM_GPUS == 0, timeout_sec=cfg.DIST.TIMEOUT_SEC):
        device, records = preflight(cfg)
        # Lock the folder before opening the log in it, which may be another run's.
        with hold_output_dir(cfg) as lock:
            log = open_output_dir(cfg)
            # During training, `train` handles the signals itself.
            stop = StopSignals(log.line, nothing_to_save="nothing was to be saved")
            with errors_in_log(log), stop:
                describe_run(cfg, log)
                validation = train(cfg, records, device, log, lock) if cfg.TRAIN.ENABLE else None
                result = test(cfg, records, device, log, stop) if cfg.TEST.ENABLE else None
                if validation is not None:
                    # Bad videos of a validation do not stop a training, so check at its end.
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
def errors_in_log(log: RunLog) -> Iterator[None]:
    """Write a UserError that ends the run to its log, too, and close the log."""
    try:
        yield
    except UserError as error:
        # The command prints it on the console.
        log.logger.error("stopped: %s", error, extra={"file_only": True})
        raise
    finally:
        log.close()


@contextmanager
def hold_output_dir(cfg: Config) -> Iterator[FolderLock | None]:
    """Make OUTPUT_DIR and, for a training, lock it; rank 0 does so for all processes.

    A test changes no checkpoint, so it needs no lock and may run beside a training.

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
    """Open the run's log; only rank 0 writes to it.

    Raises:
        UserError: OUTPUT_DIR or a file of the test's results cannot be written.
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
