"""Draw what a model sees in videos: python tools/visualize.py WHAT VIDEO ...

The same as `hiera-video visualize`; hiera_video/commands/visualize.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.visualize import main

if __name__ == "__main__":
    cli.run(main)
