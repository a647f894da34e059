"""Run the chains of a sweep, and append a line for each finished one to a results file."""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import simplejson
import torch

from hiera_video.checkpoints.run_folder import RESULTS_FILE, checkpoint_path
from hiera_video.config import Config
from hiera_video.engine.launch import launch
from hiera_video.flops.report import report_config
from hiera_video.sweeps.plan import Chain
from hiera_video.utils import disk, io
from hiera_video.utils.errors import UserError
from hiera_video.version import __version__

_SECONDS_FILE = "sweep_seconds.json"


def read_lines(path: str) -> list[dict[str, Any]]:
    """Read the results file, one dict for each finished chain; [] if there is none yet.

    Raises:
        UserError: a line is no result.
    """
    if not io.is_file(path):
        return []
    lines = []
    with io.open_file(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                found = simplejson.loads(line)
                found["name"], found["top1"]
            except (ValueError, TypeError, KeyError):
                raise UserError(
                    f"{path}:{number}: a line of results must be JSON with name and top1. Try "
                    "removing it."
                ) from None
            lines.append(found)
    return lines


def run_chains(
    chains: Sequence[Chain], results: str, *, budget_sec: float, say: Callable[[str], None]
) -> int:
    """Run the chains that `results` does not hold yet; return how many are left.

    No chain begins once `budget_sec` have passed. A chain that was interrupted goes on from its
    checkpoints.
    """
    begun = time.monotonic()
    for index, chain in enumerate(chains):
        if chain.name in {line["name"] for line in read_lines(results)}:
            continue
        if time.monotonic() - begun > budget_sec:
            done = {line["name"] for line in read_lines(results)}
            left = sum(c.name not in done for c in chains[index:])
            say(f"--budget-min is used up, {left} runs are left; the same command goes on")
            return left
        say(f"== {chain.name}")
        line = simplejson.dumps(_run(chain))
        # One write of a whole line: several processes may append to one file.
        with open(results, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    return 0


def _run(chain: Chain) -> dict[str, Any]:
    seconds = {}
    if chain.pretrain is not None:
        seconds["pretrain_sec"] = _train(chain.pretrain)
    seconds["train_sec"] = _train(chain.fine_tune)
    start = time.monotonic()
    launch(chain.test)
    seconds["test_sec"] = time.monotonic() - start
    with io.open_file(os.path.join(chain.test.OUTPUT_DIR, RESULTS_FILE)) as file:
        tested = simplejson.load(file)
    cost = report_config(chain.test, "").cost
    return {
        "sweep": chain.sweep,
        "name": chain.name,
        "value": chain.value,
        "start": chain.start,
        "seed": chain.seed,
        "settings": chain.settings,
        "top1": tested["top1_acc"],
        "top5": tested["top5_acc"],
        "top1_by_views": tested.get("top1_acc_by_views"),
        "epochs": chain.fine_tune.SOLVER.MAX_EPOCH,
        "pretrain_epochs": chain.pretrain.SOLVER.MAX_EPOCH if chain.pretrain else 0,
        **{name: round(sec, 1) for name, sec in seconds.items()},
        "gflops": round(cost.multiply_adds / 1e9, 4),
        "parameters": cost.parameters,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "hiera_video": __version__,
        "commit": _commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _train(cfg: Config) -> float:
    """Run a training to its end, unless it has ended; return its seconds, interruptions included.

    A training that other chains share is run once.
    """
    path = os.path.join(cfg.OUTPUT_DIR, _SECONDS_FILE)
    before = 0.0
    with suppress(OSError, ValueError), io.open_file(path) as file:
        before = float(simplejson.load(file))
    if io.is_file(checkpoint_path(cfg.OUTPUT_DIR, cfg.SOLVER.MAX_EPOCH)):
        return before
    start = time.monotonic()
    try:
        launch(cfg)
    finally:
        taken = before + time.monotonic() - start
        if io.is_dir(cfg.OUTPUT_DIR):
            text = simplejson.dumps(taken)
            disk.write_atomic(path, lambda file: file.write(text.encode()))
    return taken


def _commit() -> str:
    """Return the commit of the checkout that the package is in; "" if it is in none."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
