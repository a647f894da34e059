"""Draw the masking strategies: python tools/draw_masks.py PNG

The same as `hiera-video draw-masks`; hiera_video/commands/visualize.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.visualize import draw_masks as main

if __name__ == "__main__":
    cli.run(main)
