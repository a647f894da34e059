"""The validations of a run: keep their results on the disk, and say which was best."""

import os

import simplejson

from hiera_video.checkpoints.run_folder import checkpoint_folder
from hiera_video.utils import io
from hiera_video.utils.byproducts import Warn, write_by_product
from hiera_video.utils.read_json import parse_json

FILE = "validations.json"


class Validations:
    """Top-1 by finished epochs, in `checkpoints/validations.json`.

    If a run dies between a checkpoint and its validation, the resumed run validates first.

    Args:
        output_dir: OUTPUT_DIR of the run.
        warn: gets a line if the file cannot be written.
    """

    def __init__(self, output_dir: str, warn: Warn) -> None:
        self._warn = warn
        self._path = os.path.join(checkpoint_folder(output_dir), FILE)
        self._top1: dict[int, float] = {}
        try:
            with io.open_file(self._path) as file:
                self._top1 = {int(epoch): float(top1) for epoch, top1 in parse_json(file.read())}
        except (OSError, ValueError, TypeError):
            pass  # none yet, or lost: that costs only the comparison with earlier validations

    def done(self, epoch: int) -> bool:
        """Say whether the run has been validated after so many epochs."""
        return epoch in self._top1

    def forget(self) -> None:
        """Forget all results: they are of another run, and this run is new."""
        self._top1 = {}

    def is_best(self, epoch: int, top1: float) -> bool:
        """Say whether a validation is better than all validations after fewer epochs."""
        return all(top1 > earlier for number, earlier in self._top1.items() if number < epoch)

    def add(self, epoch: int, top1: float) -> None:
        """Record a validation, and forget later ones, which are of a run that went on from here.

        If the file cannot be written, the next validation tries again with all validations so far.
        """
        self._top1 = {n: value for n, value in self._top1.items() if n < epoch} | {epoch: top1}
        text = simplejson.dumps(sorted(self._top1.items()))
        write_by_product(self._path, text.encode(), self._warn)
