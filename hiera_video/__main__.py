"""The command hiera-video, also `python -m hiera_video`: it finds a command by name and runs it.

Listing the commands imports none of them: that takes seconds.
"""

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from hiera_video.utils import cli
from hiera_video.utils.lookup import closest
from hiera_video.version import __version__


class Command(NamedTuple):
    """A module of hiera_video/commands, a function in it, and a line about it.

    `needs_output` and `needs_temporary` are those of `cli.run` and `cli.begin`.
    """

    module: str
    about: str
    function: str = "main"
    needs_output: bool = True
    needs_temporary: bool = True


COMMANDS = {
    # The log of a run is in OUTPUT_DIR too.
    "train": Command("train", "train and test what a config says", needs_output=False),
    "test": Command("test", "test a checkpoint with several views per video", needs_output=False),
    "predict": Command("predict", "classify videos, folders of videos or a stream"),
    "features": Command("features", "write the features of videos, one file per video"),
    "flops": Command("flops", "count multiply-adds, parameters and activations of models"),
    "export": Command("export", "export a checkpoint: torch.export, ONNX, a folder for the hub"),
    "export-checkpoint": Command(
        "export", "export a checkpoint's weights as a plain state dict", function="export_weights"
    ),
    "serve": Command("serve", "serve a web page for trying a model"),
    "report": Command("report", "write one html page on one run or several"),
    "visualize": Command("visualize", "draw evidence, masks and reconstructions of videos"),
    "draw-masks": Command("visualize", "draw the masking strategies", function="draw_masks"),
    "benchmark": Command("benchmark", "time models, training steps and video loading"),
    "ablation": Command("ablation", "measure configs side by side: cost, speed and memory"),
    "sweep": Command("sweep", "train and test grids of settings, collect their results"),
    "check-data": Command("check_data", "decode every video of a list, write a clean list"),
    "prepare": Command("prepare", "re-encode videos for training, write their lists"),
    "shards": Command("shards", "write the videos of a list into tar shards"),
    "doctor": Command(
        "doctor", "look for what is wrong with the installation", needs_temporary=False
    ),
    "demo": Command("demo", "pretrain, fine-tune and test on synthetic videos"),
    "demo-data": Command("demo_data", "make the synthetic videos of the demo"),
    "submit": Command("submit", "queue a run on a Slurm cluster"),
}


def main() -> None:
    """Run the command that the first word names; the words after it are the command's own."""
    name, words = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    typed = Path(sys.argv[0]).name
    program = "python -m hiera_video" if typed == "__main__.py" else typed
    command = COMMANDS.get(name)
    if command is None:
        cli.begin("__main__", needs_temporary=False)
        cli.run(lambda: answer(name, program))
        return
    cli.begin("__main__", needs_temporary=command.needs_temporary)
    sys.argv = [f"{program} {name}", *words]
    module = importlib.import_module(f"hiera_video.commands.{command.module}")
    cli.run(getattr(module, command.function), needs_output=command.needs_output)


def answer(name: str, program: str) -> int:
    """Print what the first word asks for if it names no command; return the exit status."""
    if name in ("-h", "--help", "help"):
        print(overview(program))
        return 0
    if name == "--version":
        print(f"hiera_video {__version__}")
        return 0
    if not name:
        print(overview(program), file=sys.stderr)
        return 2
    near = closest(name.replace("_", "-"), COMMANDS) or f" Try {program} --help."
    print(f"error: {name!r} is no command of {program}.{near}", file=sys.stderr)
    return 2


def overview(program: str) -> str:
    """Return the usage line and a line for each command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND ...",
            "",
            "Video action recognition around Hiera. The commands:",
            "",
            *lines,
            "",
            f"{program} COMMAND --help explains a command; {program} --version prints the version.",
        ]
    )


# A process that multiprocessing starts imports the program again, under this name. It is to end
# without a traceback at Ctrl-C too.
if "__mp_main__" in sys.modules:
    cli.begin("__mp_main__")

if __name__ == "__main__":
    # With a spec, multiprocessing would not import this file in the processes that it starts.
    __spec__ = None
    main()
