"""All checks in order, and the explanation of a package that does not import.

Modules of other packages are imported in the functions: they may be what is broken.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from hiera_video.doctor import machine
from hiera_video.doctor.machine import Finding, guarded


def import_problem() -> str:
    """Import what every run imports; return what went wrong in two lines, or ""."""
    try:
        importlib.import_module("hiera_video.models.load")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a broken package may raise anything
        return _explain(error)
    return ""


def findings(output: str) -> Iterator[Finding]:
    """Run every check in turn; `output` is the folder that runs will write to."""
    from iopath.common.file_io import get_cache_dir

    from hiera_video.doctor import decoders

    folders = [
        ("OUTPUT_DIR", output),
        ("temporary files in", tempfile.gettempdir()),
        ("downloads in", get_cache_dir()),
    ]
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "versions": machine.check_versions,
        "devices": machine.check_devices,
        "memory": machine.check_memory,
        "shared memory": lambda: machine.check_shared_memory(num_gpus=machine.num_gpus()),
        "disk": partial(machine.check_disk, folders),
        "open files": machine.check_open_files,
        "decoders": decoders.check_decoders,
        "loader processes": decoders.check_loader,
    }
    for name, check in checks.items():
        yield from guarded(name, check)


def _explain(error: BaseException) -> str:
    """Say in two lines that the package does not even import."""
    reason = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, FileNotFoundError) and "temporary directory" in reason:
        return (
            f"TROUBLE nothing can start without a place for temporary files ({reason})\n"
            "        -> Free some space, raise the quota (ulimit -f, quota -s), or name a folder "
            "that can be written to in TMPDIR."
        )
    return (
        f"TROUBLE hiera_video does not import ({type(error).__name__}: {reason})\n"
        "        -> pip install -c constraints.txt -e . in the folder of the clone, with the "
        f"python that runs this ({sys.executable}); see that no file of yours is named as a "
        "package is."
    )
