"""Train and test what a config says: hiera-video train --cfg Kinetics/HIERA_B.yaml KEY VALUE ..."""

from collections.abc import Sequence

from hiera_video.commands.options import add_overrides, command_parser
from hiera_video.config import help_text, load_config
from hiera_video.config.overrides import command_words
from hiera_video.engine.launch import launch


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run what the config says."""
    parser = command_parser("Train (TRAIN.ENABLE) and test (TEST.ENABLE).")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cfg", help="YAML file, see configs/")
    what.add_argument("--help-config", action="store_true", help="explain every config key")
    add_overrides(parser, "such as NUM_GPUS 0")
    arguments = parser.parse_args(command_words(argv))
    if arguments.help_config:
        print(help_text())
        return
    launch(load_config(arguments.cfg, arguments.overrides))
