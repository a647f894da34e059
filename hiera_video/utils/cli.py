"""How every tool ends: the result, or one line for the person and a non-zero exit status."""

import sys
from collections.abc import Callable

from hiera_video.utils.errors import UserError


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with what it returns; a UserError is printed without its traceback.

    Exit status: 0 (or what `main` returned), 1 after a UserError, 130 after Ctrl-C. Any other
    exception is a bug of ours and keeps its traceback.
    """
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        status = 130
    sys.exit(status or 0)
