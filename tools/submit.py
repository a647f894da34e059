"""Queue a run on a Slurm cluster: python tools/submit.py --cfg X.yaml ...

The same as `hiera-video submit`; hiera_video/commands/submit.py holds the code.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

from hiera_video.commands.submit import main

if __name__ == "__main__":
    cli.run(main)
