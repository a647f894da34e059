"""Count multiply-adds: python tools/flops_report.py --cfg X.yaml

The same as `hiera-video flops`; hiera_video/commands/flops.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.flops import main

if __name__ == "__main__":
    cli.run(main)
