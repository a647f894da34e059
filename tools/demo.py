"""Run the whole demo: python tools/demo.py

The same as `hiera-video demo`; hiera_video/commands/demo.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.demo import main

if __name__ == "__main__":
    cli.run(main)
