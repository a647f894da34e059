"""Classify videos: python tools/predict.py VIDEO_OR_FOLDER --checkpoint X

The same as `hiera-video predict`; hiera_video/commands/predict.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.predict import main

if __name__ == "__main__":
    cli.run(main)
