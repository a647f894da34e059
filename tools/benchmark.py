"""Time models, training steps and video loading: python tools/benchmark.py WHAT ...

The same as `hiera-video benchmark`; hiera_video/commands/benchmark.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.benchmark import main

if __name__ == "__main__":
    cli.run(main)
