"""What a run says: lines for people, `json_stats` lines for programs, scalars for TensorBoard."""

import logging
import os
import socket
import sys
import time
from contextlib import suppress
from io import BytesIO
from typing import Any

import simplejson
from tqdm import tqdm

from hiera_video.checkpoints.run_folder import LOG_FILE
from hiera_video.utils.byproducts import AppendedFile, Warn
from hiera_video.utils.text import printable

LOGGER_NAME = "hiera_video"
_KEPT = "\n"  # of control characters: a line of the log may be several


class _ConsoleHandler(logging.StreamHandler):
    # On a terminal, lines are written above the progress bar. What only the file should have is
    # marked: the figures of every few iterations would bury the lines for people. A console that is
    # gone or full ends nothing: the file has every line.

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        line = printable(self.format(record), keep=_KEPT)
        with suppress(OSError, ValueError):  # the latter of a stream that the program has closed
            try:
                self._write(line)
            except UnicodeEncodeError:
                self._write(line.encode("ascii", "backslashreplace").decode())

    def _write(self, line: str) -> None:
        if self.stream.isatty():
            tqdm.write(line, file=self.stream)
        else:
            self.stream.write(line + self.terminator)
        self.stream.flush()


class _FileHandler(logging.Handler):
    def __init__(self, path: str, warn: Warn) -> None:
        super().__init__()
        self._file = AppendedFile(path, warn, gap=self._gap)

    def emit(self, record: logging.LogRecord) -> None:
        self._file.append(self._bytes(record))

    def close(self) -> None:
        self._file.close()
        super().close()

    def _bytes(self, record: logging.LogRecord) -> bytes:
        return f"{printable(self.format(record), keep=_KEPT)}\n".encode()

    def _gap(self, number: int) -> bytes:
        message = f"warning: {number} line{'s' * (number > 1)} could not be written here"
        return self._bytes(logging.makeLogRecord({"msg": message}))


def setup_logging(output_dir: str | None) -> logging.Logger:
    """Return the run's logger: to stdout and, appended, to OUTPUT_DIR/stdout.log; None: silent.

    Raises:
        OSError: the file cannot be opened. Later failures to write it are warnings.
    """
    logger = logging.getLogger(LOGGER_NAME)
    close_logging(logger)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if output_dir is None:
        logger.addHandler(logging.NullHandler())
        return logger

    def warn(message: str) -> None:
        logger.warning("warning: %s", message)

    formatter = logging.Formatter("[%(asctime)s] %(message)s", datefmt="%m/%d %H:%M:%S")
    handlers: list[logging.Handler] = [_FileHandler(os.path.join(output_dir, LOG_FILE), warn)]
    if sys.stdout is not None:  # None: closed by the caller
        handlers.insert(0, _ConsoleHandler(sys.stdout))
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    return logger


def close_logging(logger: logging.Logger) -> None:
    """Take the logger's handlers away and close their files."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


class _Scalars:
    """Scalars for TensorBoard, in an event file of this run.

    TensorBoard's own writer has a thread that ends with the first failure, and raises it later.
    """

    def __init__(self, folder: str, warn: Warn) -> None:
        os.makedirs(folder, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.0"
        header = _event(file_version="brain.Event:2")
        self._file = AppendedFile(os.path.join(folder, name), warn, header=header)

    def add(self, step: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        entries = [Summary.Value(tag=name, simple_value=values[name]) for name in values]
        self._file.append(_event(step=step, summary=Summary(value=entries)))

    def close(self) -> None:
        self._file.close()


def _event(**content: Any) -> bytes:
    """Return an event as it stands in a file: with its length and checksums."""
    # Imported late: it costs a second, and a test-only run has no use for it.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = BytesIO()
    RecordWriter(buffer).write(Event(wall_time=time.time(), **content).SerializeToString())
    return buffer.getvalue()


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
        self._scalars = None
        if tensorboard and output_dir is not None:
            self._scalars = _Scalars(os.path.join(output_dir, "tensorboard"), self.warning)

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
        file_only = kind.endswith("_iter") or _on_terminal()
        self.logger.info("json_stats: %s", text, extra={"file_only": file_only})

    def scalars(self, step: int, **values: float) -> None:
        """Write scalars for TensorBoard; `__` in a name becomes `/`."""
        if self._scalars is not None:
            self._scalars.add(step, {n.replace("__", "/"): float(v) for n, v in values.items()})

    def progress(self, total: int, description: str) -> "tqdm[Any]":
        """Return a progress bar, which shows on a terminal and nowhere else."""
        return tqdm(
            total=total,
            desc=description,
            disable=self._silent or not _on_terminal(),
            file=sys.stdout,
            leave=False,
            dynamic_ncols=True,
        )

    def close(self) -> None:
        """Close the files."""
        if self._scalars is not None:
            self._scalars.close()
        close_logging(self.logger)


def _on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
