"""Export a checkpoint as torch.export (.pt2), ONNX or a folder for the hub, or as plain weights.

hiera-video export --checkpoint X --output DIR --format pt2 onnx safetensors
hiera-video export-checkpoint CHECKPOINT OUT.pyth|OUT.safetensors [--ema]
"""

from collections.abc import Sequence

from hiera_video.commands.options import command_parser
from hiera_video.config import load_config
from hiera_video.export.graph import TOLERANCE, require_onnx
from hiera_video.export.model import FORMATS, Export, export_model
from hiera_video.export.state_dict import export_checkpoint
from hiera_video.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and export."""
    parser = command_parser(
        "Export a checkpoint as torch.export (.pt2), ONNX or a folder for from_pretrained."
    )
    parser.add_argument(
        "--checkpoint",
        default="",
        help="of a run, a published name (with --model), a file or a URL",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=["safetensors"],
        help="one or more; the outputs of pt2 and onnx are compared with the model's",
    )
    parser.add_argument(
        "--model", default="", help="model function, for weights that do not name their model"
    )
    parser.add_argument("--cfg", help="YAML file, for weights that come without their config")
    parser.add_argument("--class-names", default="", help="a file, or a list: kinetics400, ssv2")
    parser.add_argument(
        "--results", default="", help="test_results.json (default: the one of the run)"
    )
    parser.add_argument("--data-name", default="", help="what the card calls the data set")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"largest difference of a logit from the model's ({TOLERANCE:g})",
    )
    words = parser.parse_args(argv)
    if not words.checkpoint and not words.model:
        raise UserError("--checkpoint or --model must be given. Try --checkpoint X.pyth.")
    if "onnx" in words.format:
        require_onnx()  # before anything is loaded
    export_model(
        Export(
            checkpoint=words.checkpoint,
            output=words.output,
            formats=tuple(dict.fromkeys(words.format)),
            model_name=words.model,
            cfg=load_config(words.cfg) if words.cfg else None,
            class_names=words.class_names,
            results=words.results,
            data_name=words.data_name,
            tolerance=words.tolerance,
        )
    )


def export_weights(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, write the weights as a plain state dict, and print one line."""
    parser = command_parser("Export a checkpoint's weights as a plain state dict.")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of a run, a file or a URL")
    parser.add_argument("out", metavar="OUT", help="the new file: .pyth, .pt, .pth or .safetensors")
    parser.add_argument(
        "--ema", action="store_true", help="the averaged weights, of a run with TRAIN.EMA_DECAY"
    )
    arguments = parser.parse_args(argv)
    print(export_checkpoint(arguments.checkpoint, arguments.out, ema=arguments.ema))
