"""Write tar shards: python tools/make_shards.py --data-dir DIR --output DIR

The same as `hiera-video shards`; hiera_video/commands/shards.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.shards import main

if __name__ == "__main__":
    cli.run(main)
