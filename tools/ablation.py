"""Measure any list of configs side by side: python tools/ablation.py CONFIG ... --output FOLDER

The same as `hiera-video ablation`; hiera_video/commands/ablation.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.ablation import main

if __name__ == "__main__":
    cli.run(main)
