"""Write features: python tools/extract_features.py FOLDER --checkpoint X --output DIR

The same as `hiera-video features`; hiera_video/commands/features.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.features import main

if __name__ == "__main__":
    cli.run(main)
