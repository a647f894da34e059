"""The main job on the embedded demo data, with the commands a user would type: make demo"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

import simplejson

from hiera_video.config import Config, load_config, to_yaml
from hiera_video.data.build import read_records
from hiera_video.engine.test import RESULTS_FILE
from hiera_video.utils import cli, io
from hiera_video.utils.errors import UserError

CONFIG = "configs/Demo/HIERA_MICRO.yaml"
RECORD_FILE = "demo.json"


def run(command: str) -> float:
    """Run a command of this project as a user would, showing it; return its seconds."""
    print(f"\n$ {command}", flush=True)
    program, *arguments = shlex.split(command)
    assert program == "python"
    start = time.perf_counter()
    if subprocess.run([sys.executable, *arguments]).returncode:
        raise UserError(f"the demo stopped at: {command}")
    return time.perf_counter() - start


def run_steps(cfg: Config, overrides: Sequence[str]) -> dict[str, float]:
    """Make the data, train and test; return the seconds of each step when it did its work.

    A step that an earlier demo has finished is left out, and keeps the seconds it took then.
    """
    record_file = os.path.join(cfg.OUTPUT_DIR, RECORD_FILE)
    seconds = read_record(record_file, to_yaml(cfg))
    data, settings = shlex.quote(cfg.DATA.PATH_TO_DATA_DIR), " ".join(map(shlex.quote, overrides))
    commands = {
        "make data": f"python tools/make_demo_data.py {data}",
        "train": f"python tools/run_net.py --cfg {CONFIG} TEST.ENABLE False {settings}",
        "test": f"python tools/test_net.py --cfg {CONFIG} {settings}",
    }
    for step, command in commands.items():
        if step in seconds:
            print(f"{step}: done before")
            continue
        seconds[step] = run(command.strip())
        write_record(record_file, to_yaml(cfg), seconds)
    return seconds


def read_record(path: str, config_yaml: str) -> dict[str, float]:
    """Return the seconds of the steps that an earlier demo has finished."""
    if not io.is_file(path):
        return {}
    try:
        with io.open_file(path) as file:
            record = simplejson.load(file)
    except ValueError:
        raise UserError(f"{path} is damaged. Try removing it.") from None
    if record["config"] != config_yaml:
        raise UserError(
            f"{os.path.dirname(path)} holds a demo of other settings. Try removing that "
            "folder, or another OUTPUT_DIR."
        )
    return record["seconds"]


def write_record(path: str, config_yaml: str, seconds: dict[str, float]) -> None:
    """Write down which steps are finished."""
    text = simplejson.dumps({"config": config_yaml, "seconds": seconds}, indent=2)
    try:
        io.make_dirs(os.path.dirname(path))
        io.write_atomic(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"OUTPUT_DIR: {path!r} could not be written ({error}).") from None


def table(cfg: Config, seconds: dict[str, float]) -> str:
    """Return what the demo shows, as a markdown table."""
    with io.open_file(os.path.join(cfg.OUTPUT_DIR, RESULTS_FILE)) as file:
        results = simplejson.load(file)
    num_train, num_test = (len(read_records(cfg, split)) for split in ("train", "test"))
    by_views = results["top1_acc_by_views"]
    rows = [
        ("videos to train on", f"{num_train}"),
        ("videos to test on", f"{results['num_evaluated']} of {num_test}"),
        ("classes", f"{cfg.MODEL.NUM_CLASSES}"),
        ("chance", f"{100 / cfg.MODEL.NUM_CLASSES:.1f} %"),
        *((f"top-1, single view ({v})", f"{by_views[v]:.1f} %") for v in by_views if v == "1x1"),
        (f"top-1, multi-view ({results['views']})", f"{results['top1_acc']:.1f} %"),
        *((f"seconds to {step}", f"{sec:.0f}") for step, sec in seconds.items()),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"| {name:<{width}} | {value:>12} |" for name, value in rows]
    return "\n".join([lines[0], f"|{'-' * (width + 2)}|{'-' * 13}:|", *lines[1:]])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo and print its table."""
    parser = argparse.ArgumentParser(description="Make demo videos, train, test, print a table.")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config overrides")
    overrides = parser.parse_args(argv).overrides
    cfg = load_config(CONFIG, overrides)
    seconds = run_steps(cfg, overrides)
    print(f"\n{table(cfg, seconds)}\n")
    print(f"Checkpoints, log, scores and confusion matrix are in {cfg.OUTPUT_DIR}.")
    print('Next: README.md, "Your own videos".')


if __name__ == "__main__":
    cli.run(main)
