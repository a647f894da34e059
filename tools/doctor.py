"""Looks for what is wrong with an installation or a machine: python tools/doctor.py

Exit status 0: nothing; 1: there are troubles, and what to do about each.
"""

from hiera_video.utils import cli

cli.begin(__name__, needs_temporary=False)  # Ctrl-C during the imports below is no traceback

import argparse
import importlib
import sys
import tempfile
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, look at everything, and print what was found."""
    parser = argparse.ArgumentParser(
        description="What is wrong with this installation or machine, and what to do about it."
    )
    parser.add_argument("--output", default="output", help="where runs are to write (OUTPUT_DIR)")
    arguments = parser.parse_args(argv)
    # Late: what is broken may be what is imported here.
    from iopath.common.file_io import get_cache_dir

    from hiera_video.doctor import decoders as doctor_decoders
    from hiera_video.doctor import machine as doctor

    folders = [
        ("OUTPUT_DIR", arguments.output),
        ("temporary files in", tempfile.gettempdir()),
        ("downloads in", get_cache_dir()),
    ]
    checks = {
        "versions": doctor.check_versions,
        "devices": doctor.check_devices,
        "memory": doctor.check_memory,
        "shared memory": lambda: doctor.check_shared_memory(num_gpus=doctor.num_gpus()),
        "disk": lambda: doctor.check_disk(folders),
        "open files": doctor.check_open_files,
        "decoders": doctor_decoders.check_decoders,
        "loader processes": doctor_decoders.check_loader,
    }
    troubles = 0
    for name, check in checks.items():
        for finding in doctor.guarded(name, check):
            print(finding, flush=True)
            troubles += finding.status == doctor.TROUBLE
    print(f"{troubles or 'no'} trouble{'s' * (troubles > 1)} found")
    return 1 if troubles else 0


def explain(error: BaseException) -> str:
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


if __name__ == "__main__":
    try:
        importlib.import_module("hiera_video.models.load")  # with what every run imports
    except BaseException as error:  # a broken package may raise anything
        print(explain(error))
        sys.exit(1)
    cli.run(main)
