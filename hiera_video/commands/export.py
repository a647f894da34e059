"""Makes files for elsewhere of a checkpoint: torch.export (.pt2), ONNX, a folder for the hub.

python tools/export.py --checkpoint X --output DIR --format pt2 onnx safetensors
"""

import argparse
from collections.abc import Sequence

from hiera_video.config import load_config
from hiera_video.export.graph import TOLERANCE, require_onnx
from hiera_video.export.model import FORMATS, Export, export_model
from hiera_video.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        description="A checkpoint as torch.export (.pt2), ONNX or a folder for from_pretrained."
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
        help="one or more; pt2 and onnx are compared with the model they are made of",
    )
    parser.add_argument(
        "--model", default="", help="model function, for weights that do not name their model"
    )
    parser.add_argument("--cfg", help="YAML file, for weights that come without their config")
    parser.add_argument("--class-names", default="", help="a file, or a list: kinetics400, ssv2")
    parser.add_argument(
        "--results", default="", help="test_results.json; of a run: the one in its OUTPUT_DIR"
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
