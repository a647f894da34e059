"""Run everything on the demo data, with the commands that a user would type: make demo

Makes videos; trains on them from scratch, tests, and prints the first accuracy; pretrains on the
videos without labels; fine-tunes from these weights with the same settings, tests, and prints a
table that compares the two; draws reconstructions of the autoencoder; writes a report.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import simplejson
import torch

from hiera_video.checkpoints.run_folder import RESULTS_FILE, checkpoint_path
from hiera_video.commands.options import command_parser
from hiera_video.config import Config, load_config, to_yaml
from hiera_video.data.build import read_records
from hiera_video.engine.signals import CTRL_C_STATUS, REQUEUE_STATUS
from hiera_video.models.build import build_model
from hiera_video.report.write import REPORT_FILE
from hiera_video.utils import disk, io
from hiera_video.utils.errors import UserError
from hiera_video.utils.machine import clock

PRETRAIN_CONFIG = "configs/Demo/MOTIONS_V1_MAE_PT.yaml"
CONFIG = "configs/Demo/MOTIONS_V1.yaml"
RECORD_FILE = "demo.json"
# Column of the table -> folder in OUTPUT_DIR. The two runs differ only in their initial weights.
ARMS = {"from scratch": "from_scratch", "pretrained": "fine_tuned"}
NUM_PICTURED = 4
# Seconds of each step, and of `probe_sec`, on the machine of docs/demo.md, with these epochs.
REFERENCE_SEC = {
    "make data": 13.0,
    "fine-tune, from scratch": 53.0,
    "test, from scratch": 7.0,
    "pretrain": 240.0,
    "fine-tune, pretrained": 52.0,
    "test, pretrained": 7.0,
    "picture": 3.0,
    "report": 4.0,
}
REFERENCE_EPOCHS = {"pretrain": 30, "fine-tune": 4}
REFERENCE_PROBE_SEC = 0.098
# So many times slower than there, the cores are more likely shared than slow.
BUSY_FROM = 5
# Step's command -> what a user types in the clone. An installed demo runs `hiera-video COMMAND`.
TOOLS = {
    "demo-data": "tools/make_demo_data.py",
    "train": "tools/run_net.py",
    "test": "tools/test_net.py",
    "visualize mae": "tools/visualize_mae.py",
    "report": "tools/report.py",
}


@dataclass(frozen=True)
class Demo:
    """The two configs of a demo, and the overrides that made them."""

    pretrain: Config
    fine_tune: Config
    pretrain_words: Sequence[str]
    fine_tune_words: Sequence[str]

    @property
    def output_dir(self) -> str:
        """The folder of the whole demo, with a folder for each step."""
        return self.fine_tune.OUTPUT_DIR

    def folder(self, name: str) -> str:
        """Return the folder of a step."""
        return os.path.join(self.output_dir, name)

    def configs_yaml(self) -> str:
        """Return all settings as text, to compare two demos."""
        return to_yaml(self.pretrain) + "---\n" + to_yaml(self.fine_tune)

    def checkpoint(self) -> str:
        """Return the path of the pretrained weights."""
        return checkpoint_path(self.folder("pretrained"), self.pretrain.SOLVER.MAX_EPOCH)


def run(command: Sequence[str]) -> float:
    """Print a command as a user types it and run it; return its seconds.

    Its first word is a key of TOOLS.
    """
    name, *words = command
    in_clone = sys.argv[0].endswith(".py")  # as in `python tools/demo.py`
    shown = f"python {TOOLS[name]}" if in_clone else f"hiera-video {name}"
    shown = shlex.join([*shown.split(), *words])
    program = [TOOLS[name]] if in_clone else ["-m", "hiera_video", *name.split()]
    print(f"$ {shown}", flush=True)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *program, *words])
    # The step gets a Ctrl-C from the terminal, too, but not a signal to this process alone.
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while (status := wait(process)) is None:
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    if status == CTRL_C_STATUS:
        raise KeyboardInterrupt
    if status == REQUEUE_STATUS:
        print("the demo stopped; the next call goes on", flush=True)
        raise SystemExit(REQUEUE_STATUS)
    if status:
        raise UserError(f"the demo stopped at: {shown}")
    return time.perf_counter() - start


def wait(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for a step; return None at Ctrl-C, which the step gets too and may save at."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        return None


def steps_of(demo: Demo) -> dict[str, list[str]]:
    """Return the steps that make data and train, in order, and the command of each."""
    data = demo.fine_tune.DATA.PATH_TO_DATA_DIR
    steps = {"make data": ["demo-data", data]}
    for arm, name in ARMS.items():
        start = []
        if arm == "pretrained":
            start = ["TRAIN.CHECKPOINT_FILE_PATH", demo.checkpoint()]
            steps["pretrain"] = [
                *("train", "--cfg", PRETRAIN_CONFIG, *demo.pretrain_words),
                *("OUTPUT_DIR", demo.folder("pretrained")),
            ]
        settings = [*demo.fine_tune_words, "OUTPUT_DIR", demo.folder(name)]
        steps[f"fine-tune, {arm}"] = [
            *("train", "--cfg", CONFIG, *settings, "TEST.ENABLE", "False", *start)
        ]
        steps[f"test, {arm}"] = ["test", "--cfg", CONFIG, *settings]
    return steps


def picture_command(demo: Demo) -> list[str]:
    """Return the command that draws reconstructions of test videos."""
    videos = [record.path for record in read_records(demo.fine_tune, "test")[:NUM_PICTURED]]
    return [
        *("visualize mae", *videos, "--checkpoint", demo.checkpoint()),
        *("--output", demo.folder("pictures")),
    ]


def report_command(demo: Demo) -> list[str]:
    """Return the command that writes one report on all three runs."""
    folders = [demo.folder(name) for name in ("pretrained", *ARMS.values())]
    return ["report", *folders, "--output", demo.folder(REPORT_FILE)]


def run_steps(demo: Demo) -> None:
    """Run all steps, and print a table after each test and at the end.

    Steps that an earlier demo has finished are skipped; their seconds are those of that demo.
    """
    record_file = demo.folder(RECORD_FILE)
    seconds = read_record(record_file, demo.configs_yaml())
    write_record(record_file, demo.configs_yaml(), seconds)  # before the first step takes its time
    forecast = Forecast(demo)

    def do(step: str, command: Sequence[str]) -> bool:
        if step in seconds:
            print(f"{step}: done before")
            return False
        print(f"\n{forecast.line(step, seconds)}", flush=True)
        seconds[step] = run(command)
        write_record(record_file, demo.configs_yaml(), seconds)
        return True

    for step, command in steps_of(demo).items():
        if do(step, command) and step == "test, from scratch":
            print(f"\n{table(demo, seconds, ['from scratch'])}", flush=True)
    do("picture", picture_command(demo))
    do("report", report_command(demo))
    print(f"\n{table(demo, seconds, list(ARMS))}")


class Forecast:
    """Says before each step how long it will take, from what was measured on this machine.

    Before the first training that is a short probe, afterwards the finished steps. Making data does
    not count, since the data may be there already.
    """

    def __init__(self, demo: Demo) -> None:
        self.expected_sec = dict(REFERENCE_SEC)
        for name, cfg, epochs in (
            ("pretrain", demo.pretrain, REFERENCE_EPOCHS["pretrain"]),
            *((f"fine-tune, {arm}", demo.fine_tune, REFERENCE_EPOCHS["fine-tune"]) for arm in ARMS),
        ):
            self.expected_sec[name] *= cfg.SOLVER.MAX_EPOCH / epochs
        self._demo = demo

    def line(self, step: str, seconds: dict[str, float]) -> str:
        """Return the line before a step; `seconds` are those of the finished steps."""
        slower = self.slower_than_reference(seconds)
        number = list(self.expected_sec).index(step) + 1
        left = [sec * slower for name, sec in self.expected_sec.items() if name not in seconds]
        here = self.expected_sec[step] * slower
        line = (
            f"Step {number} of {len(self.expected_sec)}, {step}: about {clock(here)}. All steps "
            f"left: about {clock(sum(left))}."
        )
        if slower < BUSY_FROM or "OMP_NUM_THREADS" in os.environ:
            return line
        return (
            f"{line}\nThat is slow. If other programs use the cores, stop with Ctrl-C and try "
            "again with OMP_NUM_THREADS=1."
        )

    def slower_than_reference(self, seconds: dict[str, float]) -> float:
        """Return how many times longer steps take here than on the reference machine."""
        done = [name for name in seconds if name != "make data"]
        if not done:
            return probe_sec(self._demo.fine_tune) / REFERENCE_PROBE_SEC
        return sum(seconds[name] for name in done) / sum(self.expected_sec[name] for name in done)


def probe_sec(cfg: Config) -> float:
    """Return the seconds of one forward and backward pass of the demo's classifier."""
    model = build_model(cfg)
    clips = torch.randn(
        cfg.TRAIN.BATCH_SIZE, 3, cfg.DATA.NUM_FRAMES, *[cfg.DATA.TRAIN_CROP_SIZE] * 2
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model(clips).sum().backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def read_record(path: str, config_yaml: str) -> dict[str, float]:
    """Return the seconds of the steps that an earlier demo with these settings has finished."""
    if not io.is_file(path):
        return {}
    try:
        with io.open_file(path) as file:
            record = simplejson.load(file)
        made_with, seconds = record["config"], record["seconds"]
    except (ValueError, KeyError, TypeError):  # not JSON, or of another shape
        raise UserError(f"{path} is damaged. Try removing it.") from None
    if made_with != config_yaml:
        raise UserError(
            f"{os.path.dirname(path)} holds a demo of other settings. Try removing that "
            "folder, or another OUTPUT_DIR."
        )
    return seconds


def write_record(path: str, config_yaml: str, seconds: dict[str, float]) -> None:
    """Save which steps are finished."""
    text = simplejson.dumps({"config": config_yaml, "seconds": seconds}, indent=2)
    try:
        io.make_dirs(os.path.dirname(path))
        disk.write_atomic(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"OUTPUT_DIR: {path!r} could not be written ({error}).") from None


def table(demo: Demo, seconds: dict[str, float], arms: Sequence[str]) -> str:
    """Return the results of the classifiers `arms` as a markdown table."""
    columns = [column(demo, seconds, arm) for arm in arms]
    rows = [("", *arms), *((name, *(c[name] for c in columns)) for name in columns[0])]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in rows
    ]
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def column(demo: Demo, seconds: dict[str, float], arm: str) -> dict[str, str]:
    """Return the table's rows for one of the two classifiers."""
    cfg = replace(demo.fine_tune, OUTPUT_DIR=demo.folder(ARMS[arm]))
    with io.open_file(os.path.join(cfg.OUTPUT_DIR, RESULTS_FILE)) as file:
        results = simplejson.load(file)
    num_train, num_test = (len(read_records(cfg, split)) for split in ("train", "test"))
    by_views, own = results["top1_acc_by_views"], arm == "pretrained"
    passes = demo.pretrain.SOLVER.MAX_EPOCH
    return {
        "pretrained without labels for": f"{passes} epochs" if own else "-",
        "fine-tuned with labels for": f"{cfg.SOLVER.MAX_EPOCH} epochs",
        "videos to train on": f"{num_train}",
        "videos to test on": f"{results['num_evaluated']} of {num_test}",
        f"chance, of {cfg.MODEL.NUM_CLASSES} classes": f"{100 / cfg.MODEL.NUM_CLASSES:.1f} %",
        **{f"top-1, single view ({v})": f"{by_views[v]:.1f} %" for v in by_views if v == "1x1"},
        f"top-1, multi-view ({results['views']})": f"{results['top1_acc']:.1f} %",
        "seconds to make data": f"{seconds['make data']:.0f}",
        "seconds to pretrain": f"{seconds['pretrain']:.0f}" if own else "-",
        "seconds to fine-tune": f"{seconds[f'fine-tune, {arm}']:.0f}",
        "seconds to test": f"{seconds[f'test, {arm}']:.0f}",
    }


def parse_args(argv: Sequence[str] | None) -> Demo:
    """Read the command line, and the configs that it names."""
    parser = command_parser(
        "Make demo videos, train from scratch, test, print the accuracy; pretrain, fine-tune, "
        "test, compare the two; write a report."
    )
    pair = "KEY VALUE"
    parser.add_argument("overrides", nargs="*", metavar=pair, help="config overrides for all steps")
    for flag, step in (("--pretrain", "pretraining"), ("--fine-tune", "fine-tuning and testing")):
        parser.add_argument(
            flag, nargs="+", metavar=pair, default=[], help=f"config overrides for {step} only"
        )
    args = parser.parse_args(argv)
    pretrain_words = [*args.overrides, *args.pretrain]
    fine_tune_words = [*args.overrides, *args.fine_tune]
    return Demo(
        pretrain=load_config(PRETRAIN_CONFIG, pretrain_words),
        fine_tune=load_config(CONFIG, fine_tune_words),
        pretrain_words=pretrain_words,
        fine_tune_words=fine_tune_words,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo and print its table."""
    demo = parse_args(argv)
    run_steps(demo)
    print(f"\nCheckpoints, logs, scores and confusion matrices are in {demo.output_dir},")
    print(f"and what the autoencoder sees and predicts in {demo.folder('pictures')}.")
    print(f"Report, for any browser: {os.path.abspath(demo.folder(REPORT_FILE))}")
    print('Next: README.md, "Your own videos".')
