"""Train and test: python tools/run_net.py --cfg X.yaml KEY VALUE ...

The same as `hiera-video train`; hiera_video/commands/train.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.train import main

if __name__ == "__main__":
    cli.run(main, needs_output=False)  # the log is in OUTPUT_DIR too
