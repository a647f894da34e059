"""Draw reconstructions: python tools/visualize_mae.py VIDEO ... --checkpoint X

The same as `hiera-video visualize mae`; hiera_video/commands/visualize.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.visualize import main_mae as main

if __name__ == "__main__":
    cli.run(main)
