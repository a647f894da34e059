"""Re-encode videos for training: python tools/prepare_videos.py SOURCE OUTPUT

The same as `hiera-video prepare`; hiera_video/commands/prepare.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.prepare import main

if __name__ == "__main__":
    cli.run(main)
