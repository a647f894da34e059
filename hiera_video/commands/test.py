"""Test a checkpoint: hiera-video test --cfg X.yaml TEST.CHECKPOINT_FILE_PATH Y KEY VALUE ..."""

from collections.abc import Sequence

from hiera_video.commands.options import add_overrides, command_parser
from hiera_video.config import load_config
from hiera_video.config.overrides import command_words
from hiera_video.engine.launch import launch


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and test; TRAIN.ENABLE of the config is ignored."""
    parser = command_parser("Test a checkpoint with several views per video.")
    parser.add_argument("--cfg", required=True, help="YAML file, see configs/")
    parser.add_argument(
        "--views-table",
        action="store_true",
        help="print the accuracy for growing numbers of views, from the same pass",
    )
    add_overrides(parser, "such as TEST.CHECKPOINT_FILE_PATH checkpoint_epoch_00075.pyth")
    arguments = parser.parse_args(command_words(argv))
    overrides = [*arguments.overrides, "TRAIN.ENABLE", "False", "TEST.ENABLE", "True"]
    if arguments.views_table:
        overrides += ["TEST.VIEWS_TABLE", "True"]
    launch(load_config(arguments.cfg, overrides))
