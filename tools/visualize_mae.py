"""Show what a masked autoencoder makes of videos: original, visible part and reconstruction.

python tools/visualize_mae.py VIDEO ... --checkpoint output/checkpoints/checkpoint_epoch_00800.pyth
python tools/visualize_mae.py VIDEO ... --model mae_hiera_base_16x224 --strategy random

The same as `tools/visualize.py mae`.
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

import argparse
from collections.abc import Sequence

from hiera_video.visualize.clips import add_mae_options, show_mae


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures; return 1 if a video failed."""
    parser = argparse.ArgumentParser(
        description="Write original | visible | reconstruction of videos as PNG and mp4."
    )
    add_mae_options(parser)
    return show_mae(parser.parse_args(argv))


if __name__ == "__main__":
    cli.run(main)
