"""Where multiprocessing puts its sockets, whose paths an operating system wants short."""

import os
import tempfile
from multiprocessing import util

from hiera_video.utils.errors import UserError

# sun_path of unix(7) has 108 bytes with the zero at its end, and 104 elsewhere; of these,
# "/pymp-xxxxxxxx/listener-xxxxxxxx" is added to the temporary folder.
LONGEST = 103 - 32
_SHORT = ("/tmp", "/var/tmp")


def make_room_for_sockets() -> None:
    """Where TMPDIR is too long for sockets, as some clusters' are, let them be in /tmp.

    Raises:
        UserError: neither /tmp nor /var/tmp can be written to.
    """
    given = tempfile.gettempdir()
    if len(os.fsencode(given)) <= LONGEST:
        return
    short = next((path for path in _SHORT if os.access(path, os.W_OK | os.X_OK)), None)
    if short is None:
        raise UserError(
            f"TMPDIR must have at most {LONGEST} bytes, for the sockets of the loader's "
            f"processes, got {given!r}. Try a shorter one, or DATA_LOADER.NUM_WORKERS 0."
        )
    tempfile.tempdir = short
    try:
        util.get_temp_dir()  # makes a private one, and keeps to it
    finally:
        tempfile.tempdir = given
