"""Count multiply-adds: hiera-video flops --cfg Kinetics/HIERA_B.yaml"""

from collections.abc import Callable, Sequence

from hiera_video.commands.options import add_overrides, command_parser, model_functions
from hiera_video.config import load_config
from hiera_video.flops.report import report_config, report_function
from hiera_video.flops.table import FORMATS, render
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest


def find_model(name: str) -> Callable[[], HieraEncoder]:
    """Return a model function by name, or raise a UserError that lists them."""
    functions = model_functions("hiera_", "mae_hiera_")
    if name not in functions:
        raise UserError(
            f"--model must be a model function of hiera_video ({', '.join(functions)}), got "
            f"{name!r}.{closest(name, functions)}"
        )
    return functions[name]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, count, and print."""
    parser = command_parser(
        "Count multiply-adds, parameters and activations of models, attention included."
    )
    parser.add_argument("--cfg", action="append", default=[], help="YAML file; may be repeated")
    parser.add_argument(
        "--model", action="append", default=[], help="model function; may be repeated"
    )
    parser.add_argument(
        "--mask-ratio", type=float, help="of a --model mae_... (default: the paper's)"
    )
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.add_argument(
        "--details", action="store_true", help="also by stage and by operator, for every model"
    )
    add_overrides(parser, "for every --cfg")
    arguments = parser.parse_args(argv)
    if not arguments.cfg and not arguments.model:
        raise UserError("--cfg or --model must be given. Try --cfg configs/Kinetics/HIERA_B.yaml.")
    if arguments.overrides and not arguments.cfg:
        raise UserError(f"KEY VALUE pairs must go with --cfg, got {' '.join(arguments.overrides)}.")
    if arguments.mask_ratio is not None and not arguments.model:
        raise UserError("--mask-ratio must go with --model. Try MASK.RATIO for a --cfg.")
    configs = [(load_config(path, arguments.overrides), path) for path in arguments.cfg]
    functions = [find_model(name) for name in arguments.model]
    reports = [report_config(cfg, path) for cfg, path in configs]
    reports += [report_function(make, mask_ratio=arguments.mask_ratio) for make in functions]
    print(render(reports, style=arguments.format, with_details=arguments.details))
