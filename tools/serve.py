"""Serve a web page for a model: python tools/serve.py --checkpoint X

The same as `hiera-video serve`; hiera_video/commands/serve.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.serve import main

if __name__ == "__main__":
    cli.run(main)
