"""What a run says: lines for people, `json_stats` lines for programs, scalars for TensorBoard."""

import logging
import os
import sys
from typing import Any

import simplejson
from tqdm import tqdm

LOGGER_NAME = "hiera_video"


class _ConsoleHandler(logging.StreamHandler):
    # On a terminal, lines are written above the progress bar. What only the file should have is
    # marked: the figures of every few iterations would bury the lines for people.

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        if self.stream.isatty():
            tqdm.write(self.format(record), file=self.stream)
        else:
            super().emit(record)


def setup_logging(output_dir: str | None) -> logging.Logger:
    """Return the run's logger: to stdout and, appended, to OUTPUT_DIR/stdout.log; None: silent."""
    logger = logging.getLogger(LOGGER_NAME)
    close_logging(logger)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if output_dir is None:
        logger.addHandler(logging.NullHandler())
        return logger
    formatter = logging.Formatter("[%(asctime)s] %(message)s", datefmt="%m/%d %H:%M:%S")
    log_file = os.path.join(output_dir, "stdout.log")
    for handler in (_ConsoleHandler(sys.stdout), logging.FileHandler(log_file, encoding="utf-8")):
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    return logger


def close_logging(logger: logging.Logger) -> None:
    """Take the logger's handlers away and close their files."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


class RunLog:
    """The three voices of a run behind one object.

    Args:
        output_dir: holds stdout.log and the TensorBoard events; None for the voice of a process
            that leaves all this to rank 0, and is silent.
        tensorboard: whether scalars are written for TensorBoard.
    """

    def __init__(self, output_dir: str | None, *, tensorboard: bool) -> None:
        self.logger = setup_logging(output_dir)
        self._silent = output_dir is None
        self._writer = None
        if tensorboard and output_dir is not None:
            # Imported late: it costs a second, and a test-only run has no use for it.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(os.path.join(output_dir, "tensorboard"))

    def line(self, message: str) -> None:
        """Log a line for people."""
        self.logger.info(message)

    def warning(self, message: str) -> None:
        """Log a line that starts with "warning:"."""
        self.logger.warning("warning: %s", message)

    def stats(self, kind: str, **values: Any) -> None:
        """Log `json_stats: {"_type": kind, ...}`; NaN and infinity become null.

        Those of an epoch or a test go to the console too, except on a terminal; those of an
        iteration to OUTPUT_DIR/stdout.log only.
        """
        text = simplejson.dumps({"_type": kind, **values}, ignore_nan=True)
        file_only = kind.endswith("_iter") or sys.stdout.isatty()
        self.logger.info("json_stats: %s", text, extra={"file_only": file_only})

    def scalars(self, step: int, **values: float) -> None:
        """Write scalars for TensorBoard; `__` in a name becomes `/`."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name.replace("__", "/"), value, step)

    def progress(self, total: int, description: str) -> "tqdm[Any]":
        """Return a progress bar, which shows on a terminal and nowhere else."""
        return tqdm(
            total=total,
            desc=description,
            disable=self._silent or not sys.stdout.isatty(),
            file=sys.stdout,
            leave=False,
            dynamic_ncols=True,
        )

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            self._writer.close()
        close_logging(self.logger)
