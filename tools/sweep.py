"""Run grids of settings: python tools/sweep.py configs/Sweeps/mask_ratio.yaml [KEY VALUE ...]

The same as `hiera-video sweep`; hiera_video/commands/sweep.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.sweep import main

if __name__ == "__main__":
    cli.run(main)
