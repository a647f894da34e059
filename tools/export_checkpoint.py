"""Export plain weights: python tools/export_checkpoint.py CHECKPOINT OUT

The same as `hiera-video export-checkpoint`; hiera_video/commands/export.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.export import export_weights as main

if __name__ == "__main__":
    cli.run(main)
