"""Export a checkpoint: python tools/export.py --checkpoint X --output DIR ...

The same as `hiera-video export`; hiera_video/commands/export.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.export import main

if __name__ == "__main__":
    cli.run(main)
