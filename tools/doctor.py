"""Check this installation and machine: python tools/doctor.py

The same as `hiera-video doctor`; hiera_video/commands/doctor.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__, needs_temporary=False)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.doctor import main

if __name__ == "__main__":
    cli.run(main)
