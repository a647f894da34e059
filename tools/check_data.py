"""Decode every video of a list: python tools/check_data.py --data-dir DIR ...

The same as `hiera-video check-data`; hiera_video/commands/check_data.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.check_data import main

if __name__ == "__main__":
    cli.run(main)
