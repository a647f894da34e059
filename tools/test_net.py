"""Test a checkpoint: python tools/test_net.py --cfg X.yaml TEST.CHECKPOINT_FILE_PATH Y

The same as `hiera-video test`; hiera_video/commands/test.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.test import main

if __name__ == "__main__":
    cli.run(main, needs_output=False)  # the log is in OUTPUT_DIR too
