"""Write a report on runs: python tools/report.py OUTPUT_DIR [OUTPUT_DIR ...]

The same as `hiera-video report`; hiera_video/commands/report.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.report import main

if __name__ == "__main__":
    cli.run(main)
