"""Make the demo videos: python tools/make_demo_data.py OUTPUT_DIR

The same as `hiera-video demo-data`; hiera_video/commands/demo_data.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.demo_data import main

if __name__ == "__main__":
    cli.run(main)
