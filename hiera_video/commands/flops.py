"""Count multiply-adds: python tools/flops_report.py --cfg configs/Kinetics/HIERA_B.yaml"""

import argparse
import inspect
from collections.abc import Callable, Sequence

import hiera_video
from hiera_video.config import load_config
from hiera_video.flops.report import report_config, report_function
from hiera_video.flops.table import STYLES, details, not_counted, summary, to_json
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest


def model_functions() -> dict[str, Callable[[], HieraEncoder]]:
    """Return the public functions of hiera_video that make a model, by name."""
    public = {name: getattr(hiera_video, name) for name in hiera_video.__all__}
    return {
        name: function
        for name, function in public.items()
        if inspect.isfunction(function) and name.startswith(("hiera_", "mae_hiera_"))
    }


def find_model(name: str) -> Callable[[], HieraEncoder]:
    """Return a model function by name, or raise a UserError that lists them."""
    functions = model_functions()
    if name not in functions:
        raise UserError(
            f"--model must be a model function of hiera_video ({', '.join(functions)}), got "
            f"{name!r}.{closest(name, functions)}"
        )
    return functions[name]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, count, and print."""
    parser = argparse.ArgumentParser(
        description="Multiply-adds, parameters and activations of models, attention counted."
    )
    parser.add_argument("--cfg", action="append", default=[], help="YAML file; may be repeated")
    parser.add_argument("--model", action="append", default=[], help="function; may be repeated")
    parser.add_argument(
        "--mask-ratio", type=float, help="of a --model mae_...; the paper's if not given"
    )
    parser.add_argument("--format", choices=(*STYLES, "json"), default="table")
    parser.add_argument(
        "--details", action="store_true", help="by stage and by operator, for every model"
    )
    parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="for every --cfg"
    )
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
    if arguments.format == "json":
        print(to_json(reports))
        return
    parts = [summary(reports, style=arguments.format)]
    if arguments.details or (arguments.format == "table" and len(reports) == 1):
        parts += [details(report, style=arguments.format) for report in reports]
    print("\n\n".join([*parts, not_counted(reports)]))
