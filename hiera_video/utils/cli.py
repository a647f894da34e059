"""How every tool ends: the result, or one line for the person and a non-zero exit status."""

import os
import sys
from collections.abc import Callable
from io import TextIOWrapper

from hiera_video.utils.errors import UserError


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with what it returns; a UserError is printed without its traceback.

    Exit status: 0 (or what `main` returned), 1 after a UserError, 130 after Ctrl-C. Any other
    exception is a bug of ours and keeps its traceback. Of the processes that torchrun has started,
    only the first one to fail says why.
    """
    _print_whatever_comes()
    sys.argv[1:] = map(_with_home, sys.argv[1:])
    try:
        status = _one_of_many(main) if "RANK" in os.environ else main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("\nstopped by Ctrl-C", file=sys.stderr)
        status = 130
    sys.exit(status or 0)


def _with_home(word: str) -> str:
    """Put the home folder for a `~` that no shell has seen, as in `--output=~/here`."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + os.path.expanduser(value)


def _print_whatever_comes() -> None:
    """Let a file's name be printed that is no text, and a class's that the terminal lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            is_utf8 = stream.encoding.lower().replace("-", "") == "utf8"
            # The first gives the bytes of the name as they are on the disk.
            stream.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def _one_of_many(main: Callable[[], int | None]) -> int | None:
    # Imported late: tools that need no torch are quicker without it.
    from torch.distributed.elastic.multiprocessing.errors import record

    from hiera_video.utils import dist

    def first_tells() -> int | None:
        try:
            return main()
        except Exception:
            if not dist.is_first_to_fail():
                sys.exit(1)
            raise

    return record(first_tells)()  # for torchrun's own report
