"""Choose the folder of multiprocessing's sockets, whose paths must be short."""

import os
import tempfile
from multiprocessing import util

from hiera_video.utils.errors import UserError

# sun_path of unix(7) has 108 bytes with the terminating zero, and 104 on other systems.
# multiprocessing appends "/pymp-xxxxxxxx/listener-xxxxxxxx" to the temporary folder.
LONGEST = 103 - 32
_SHORT = ("/tmp", "/var/tmp")


def make_room_for_sockets() -> None:
    """Put sockets in /tmp if TMPDIR is too long for them, as on some clusters.

    Raises:
        UserError: Neither /tmp nor /var/tmp can be written.
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
        util.get_temp_dir()  # creates a private folder, and remembers it
    finally:
        tempfile.tempdir = given
