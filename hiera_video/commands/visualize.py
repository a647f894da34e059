"""See inside: where the evidence lies, what masks hide, what an autoencoder predicts.

python tools/visualize.py evidence VIDEO ... --checkpoint X.pyth [--label NAME]
python tools/visualize.py mae VIDEO ... --checkpoint X.pyth
python tools/visualize.py masks VIDEO ... [--ratio 0.9]

Each video becomes a PNG, a row of frames for each thing shown, and an mp4 with them side by side.
"""

import argparse
from collections.abc import Sequence

from hiera_video.visualize.clips import (
    add_evidence_options,
    add_mae_options,
    add_masks_options,
    show_evidence,
    show_mae,
    show_masks,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures; return 1 if a video failed."""
    parser = argparse.ArgumentParser(description="Show what models see in videos, as PNG and mp4.")
    what = parser.add_subparsers(required=True, metavar="WHAT")
    for name, words, add_options, show in (
        ("evidence", "where the evidence for a class lies", add_evidence_options, show_evidence),
        ("mae", "original | visible | reconstruction", add_mae_options, show_mae),
        ("masks", "what each masking strategy leaves visible", add_masks_options, show_masks),
    ):
        one = what.add_parser(name, help=words, description=f"Show {words}, as PNG and mp4.")
        add_options(one)
        one.set_defaults(show=show)
    arguments = parser.parse_args(argv)
    return arguments.show(arguments)
