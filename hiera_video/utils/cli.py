"""Start and end every tool: Ctrl-C, standard streams, one-line errors, exit status."""

import codecs
import errno
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType

from hiera_video.utils.errors import UserError

_CTRL_C_STATUS = 130  # what a shell reports after Ctrl-C
_NAMES = "hiera_video names"  # the error handler for characters that cannot be encoded


class OutputError(OSError):
    """Standard output cannot be written: its disk is full, or its reader has exited."""


class _Output(TextIOWrapper):
    """Standard output that raises OutputError, to tell its failures from those of other files."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None


class _ByProduct(TextIOWrapper):
    """Standard error, or the console of a run with a log: failures to write it are ignored."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def begin(name: str, *, needs_temporary: bool = True) -> None:
    """Prepare the process before a tool's imports, which take seconds.

    `name` is the tool's `__name__`. Does nothing unless the tool runs from the command line or in
    a process that it started. Until `run` is called, Ctrl-C ends the process with status 130 and
    no traceback. Standard streams that the caller closed are opened on the null device, so that no
    other file gets their numbers. If no folder for temporary files can be written, the tool ends
    with a one-line error, unless `needs_temporary` is False.
    """
    if name not in ("__main__", "__mp_main__"):
        return
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass  # os.open returns the lowest free number
        os.close(descriptor)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_quietly if name == "__mp_main__" else _end)
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        if needs_temporary:
            print(
                f"error: TMPDIR must be a folder that can be written to, got none ({error}). Free "
                "some space, or try another TMPDIR.",
                file=sys.stderr,
            )
            sys.exit(1)


def run(main: Callable[[], int | None], *, needs_output: bool = True) -> None:
    """Call `main` and exit with the status it returns; print a UserError without a traceback.

    The exit status is 0 (or what `main` returned), 1 after a UserError, and 130 after Ctrl-C. If
    standard output cannot be written, the status is 1, unless its reader has exited, as `head`
    does. If `needs_output` is False, such a failure is ignored. Any other exception is a bug and
    keeps its traceback. Of several processes started by torchrun, only the first to fail prints
    its error.
    """
    _prepare_stream("stdout", 1, _Output if needs_output else _ByProduct)
    _prepare_stream("stderr", 2, _ByProduct)
    if signal.getsignal(signal.SIGINT) in (_end, _end_quietly):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = map(_with_home, sys.argv[1:])
    status: int | str | None
    try:
        status = _one_of_many(main) if "RANK" in os.environ else main()
    except SystemExit as ended:
        status = ended.code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except OutputError as error:
        status = _without_output(error)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("\nstopped by Ctrl-C", file=sys.stderr)
        status = _CTRL_C_STATUS
    try:
        sys.stdout.flush()
    except OutputError as error:
        # Otherwise Python would try to write the rest, and fail again, when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or _without_output(error)
    sys.exit(status or 0)


def _with_home(word: str) -> str:
    """Replace a `~` that the shell does not expand, as in `--output=~/here`."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + os.path.expanduser(value)


def _end(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"\nstopped by Ctrl-C\n")
    _end_quietly(number, frame)


def _end_quietly(number: int, frame: FrameType | None) -> None:
    os._exit(_CTRL_C_STATUS)


def _without_output(error: OutputError) -> int:
    """Return the exit status if standard output failed; print why unless its reader has exited."""
    if error.errno == errno.EPIPE:
        return 0
    print(
        f"error: standard output could not be written ({error.strerror}). Free some space, or try "
        "another file.",
        file=sys.stderr,
    )
    return 1


def _prepare_stream(name: str, descriptor: int, kind: type[TextIOWrapper]) -> None:
    """Make a standard stream exist, accept any file name, and raise the errors of `kind`."""
    codecs.register_error(_NAMES, _encode_name)
    stream = getattr(sys, name)
    if stream is None:  # closed by the caller; `begin` has opened its descriptor
        with suppress(OSError):
            file = open(descriptor, "wb", closefd=False)  # noqa: SIM115
            setattr(sys, name, kind(file, encoding="utf-8", errors=_NAMES))
    elif type(stream) is TextIOWrapper:  # leave streams replaced by tests and other programs
        may_fail = stream.errors in ("strict", "surrogateescape")
        new = kind(
            stream.buffer,
            encoding=stream.encoding,
            errors=_NAMES if may_fail else stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, new)


def _encode_name(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode what is not text: bytes of a file name as they are on the disk, the rest escaped."""
    assert isinstance(error, UnicodeEncodeError)
    if error.encoding.lower().replace("-", "") == "utf8":
        one = UnicodeEncodeError(
            error.encoding, error.object, error.start, error.start + 1, error.reason
        )
        with suppress(UnicodeError):
            return codecs.lookup_error("surrogateescape")(one)
    return codecs.lookup_error("backslashreplace")(error)


def _one_of_many(main: Callable[[], int | None]) -> int | None:
    # Import late: tools that do not need torch start faster without it.
    from torch.distributed.elastic.multiprocessing.errors import record

    from hiera_video.utils import dist

    def report_if_first() -> int | None:
        try:
            return main()
        except Exception:
            if not dist.is_first_to_fail():
                sys.exit(1)
            raise

    return record(report_if_first)()  # `record` writes the error file for torchrun's report
