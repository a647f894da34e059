"""Makes one plain state dict of any checkpoint, to load anywhere.

python tools/export_checkpoint.py CHECKPOINT OUT.pyth|OUT.safetensors [--ema]
"""

from hiera_video.utils import cli

cli.begin(__name__)  # Ctrl-C during the imports below is no traceback

import argparse
from collections.abc import Sequence

from hiera_video.export.state_dict import export_checkpoint


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, export, and print one line."""
    parser = argparse.ArgumentParser(description="A checkpoint's weights as a plain state dict.")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of a run, a file or a URL")
    parser.add_argument("out", metavar="OUT", help="the new file: .pyth, .pt, .pth or .safetensors")
    parser.add_argument(
        "--ema", action="store_true", help="the averaged weights, of a run with TRAIN.EMA_DECAY"
    )
    arguments = parser.parse_args(argv)
    print(export_checkpoint(arguments.checkpoint, arguments.out, ema=arguments.ema))


if __name__ == "__main__":
    cli.run(main)
