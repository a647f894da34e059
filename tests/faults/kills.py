"""Kill runs at random moments, resume, and compare the results: python tests/faults/kills.py

The first run is not killed. Each trial then starts the same run in a new folder and kills it with
SIGKILL, at a random moment of its training or while it writes a checkpoint. It restarts the run as
a person or a scheduler would. Finally it compares the last checkpoint with that of the first run,
bit for bit: the weights, their average, the optimizer state and the random generators. With several
processes (`--processes`), it kills either one rank, after which torchrun ends the others, or
torchrun and all ranks. The exit status is 1 if any trial ends with another checkpoint.
"""

import argparse
import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from hiera_video.data.synthetic.manifest import DemoParameters
from hiera_video.data.synthetic.videos import make_demo_data

ROOT = Path(__file__).resolve().parents[2]
MAX_EPOCH = 4
# All random parts are enabled. A checkpoint is saved every 2 of an epoch's 8 iterations. Gradients
# of two batches are accumulated, so that a step has more than one iteration.
SETTINGS = (
    "DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 2 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 "
    "NUM_GPUS 0 TRAIN.BATCH_SIZE 2 TRAIN.EVAL_PERIOD 100 TRAIN.CHECKPOINT_PERIOD 1 "
    f"TRAIN.CHECKPOINT_ITERS 2 TRAIN.EMA_DECAY 0.9 SOLVER.MAX_EPOCH {MAX_EPOCH} "
    "SOLVER.ACCUM_STEPS 2 MODEL.DROP_PATH_RATE 0.3 MODEL.DROPOUT_RATE 0.3 MIXUP.ENABLE True "
    "AUG.AA_TYPE rand-m7-n4-mstd0.5-inc1 AUG.RE_PROB 0.5 TEST.ENABLE False LOG_PERIOD 1 "
    "TENSORBOARD.ENABLE False DATA_LOADER.TIMEOUT_SEC 60"
)
_WAIT_SEC = 180.0
_ITERATION = r"epoch (\d+/\d+ iteration \d+/\d+) loss"


@dataclasses.dataclass(frozen=True)
class Trial:
    """Which process to kill, when, and with how many loader processes to resume."""

    number: int
    while_writing: bool
    after: float  # when: fraction of the iterations, or of the checkpoints written, in [0, 1)
    victim: int  # a rank, or -1: all processes at once
    workers: tuple[int, int]


class Campaign:
    """Run the same training many times in folders under `folder`, killing some of the runs."""

    def __init__(self, folder: Path, num_processes: int, strategy: str) -> None:
        self.folder = folder
        self.num_processes = num_processes
        self.strategy = strategy
        self.data = folder / "data"
        parameters = DemoParameters(
            num_train_per_class=2 * num_processes, num_val_per_class=1, size=48, num_frames=12
        )
        make_demo_data(str(self.data), parameters, num_workers=1)
        self.num_iterations, self.iteration_sec = 0, 0.0

    def command(self, output: Path, num_workers: int) -> list[str]:
        """Return the command line of a run."""
        words = ["tools/run_net.py", "--cfg", "configs/Demo/HIERA_MICRO.yaml", *SETTINGS.split()]
        words += ["DATA.PATH_TO_DATA_DIR", str(self.data), "OUTPUT_DIR", str(output)]
        words += ["DATA_LOADER.NUM_WORKERS", str(num_workers)]
        words += ["TRAIN.BATCH_SIZE", str(2 * self.num_processes)]
        if self.num_processes == 1:
            return [sys.executable, *words]
        words += ["DIST.STRATEGY", self.strategy] if self.strategy != "ddp" else []
        launcher = ["-m", "torch.distributed.run", "--nnodes", "1", "--rdzv-backend", "c10d"]
        launcher += ["--rdzv-endpoint", "localhost:0", "--local-addr", "localhost"]
        return [sys.executable, *launcher, "--nproc-per-node", str(self.num_processes), *words]

    @contextmanager
    def started(self, output: Path, num_workers: int) -> Iterator[subprocess.Popen[str]]:
        """Start a run as the leader of a process group; kill what is left of the group at exit."""
        quiet = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        with open(f"{output}.err", "a") as errors:
            process = subprocess.Popen(
                self.command(output, num_workers),
                cwd=ROOT,
                env=os.environ | quiet,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def finish(self, output: Path, num_workers: int) -> dict[str, Any]:
        """Run to the end and return the last checkpoint."""
        with self.started(output, num_workers) as process:
            status = process.wait(timeout=_WAIT_SEC)
        if status:
            raise RuntimeError(f"exit status {status}: {Path(f'{output}.err').read_text()[-2000:]}")
        return last_state(output)

    def reference(self) -> dict[str, Any]:
        """Run without a kill, and record how long its training took."""
        output = self.folder / "reference"
        with self.started(output, 1) as process:
            wait_for_training(output, process)
            began = time.monotonic()
            if process.wait(timeout=_WAIT_SEC):
                raise RuntimeError(Path(f"{output}.err").read_text()[-2000:])
        iterations = re.findall(_ITERATION, log_of(output))
        self.num_iterations = len(iterations)
        self.iteration_sec = (time.monotonic() - began) / self.num_iterations
        return last_state(output)

    def kill(self, output: Path, trial: Trial) -> str:
        """Start a run and kill it; return where it was, or "" if it had already ended."""
        with self.started(output, trial.workers[0]) as process:
            wait_for_training(output, process)
            if trial.while_writing:
                target = int(trial.after * 4 * MAX_EPOCH)  # checkpoints are written
                wait_for_writing(output, process, count=target)
            else:
                whole, part = divmod(trial.after * self.num_iterations, 1)
                wait_for_iterations(output, process, count=int(whole))
                time.sleep(part * self.iteration_sec)
            if process.poll() is not None:
                return ""
            where = position_of(output)
            self._strike(process, trial.victim)
            return where

    def _strike(self, process: subprocess.Popen[str], victim: int) -> None:
        if victim < 0 or self.num_processes == 1:
            os.killpg(process.pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                for pid in ranks(process.pid).values():
                    os.kill(pid, signal.SIGKILL)
        else:
            with suppress(ProcessLookupError, KeyError):
                os.kill(ranks(process.pid)[victim], signal.SIGKILL)
        process.wait(timeout=_WAIT_SEC)


def ranks(agent: int) -> dict[int, int]:
    """Return torchrun's child processes by rank."""
    found = {}
    for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        for entry in environment:
            if entry.startswith(b"RANK="):
                found[int(entry[5:])] = int(pid)
    return found


def log_of(output: Path) -> str:
    """Return the log of the run so far."""
    path = output / "stdout.log"
    return path.read_text() if path.exists() else ""


def wait_for_training(output: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the log says that training has started."""
    give_up = time.monotonic() + _WAIT_SEC
    while "training hiera" not in log_of(output):
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"it never trained: {Path(f'{output}.err').read_text()[-2000:]}")
        time.sleep(0.01)


def wait_for_iterations(output: Path, process: subprocess.Popen[str], *, count: int) -> None:
    """Wait until the run has logged `count` iterations, or has ended."""
    while process.poll() is None and len(re.findall(_ITERATION, log_of(output))) < count:
        time.sleep(0.005)


def wait_for_writing(output: Path, process: subprocess.Popen[str], *, count: int) -> None:
    """Wait until a temporary file exists after `count` checkpoints have been written."""
    folder, seen = output / "checkpoints", set()
    while process.poll() is None:
        names = os.listdir(folder) if folder.exists() else []
        seen.update(name for name in names if re.fullmatch(r"checkpoint_epoch_\w+\.\w+", name))
        if len(seen) >= count and any(is_unfinished(folder / name) for name in names):
            return


def is_unfinished(path: Path) -> bool:
    """Return whether a checkpoint is being written: a temporary file, or a folder of them."""
    return "tmp" in path.name or (path.is_dir() and not (path / ".metadata").exists())


def position_of(output: Path) -> str:
    """Return the last iteration in the log."""
    lines = re.findall(_ITERATION, log_of(output))
    return lines[-1] if lines else "before the first iteration"


def last_state(output: Path) -> dict[str, Any]:
    """Return the content of the last checkpoint, as plain tensors."""
    path = output / "checkpoints" / f"checkpoint_epoch_{MAX_EPOCH:05d}.pyth"
    if not path.exists():
        exported = output / "exported.pyth"
        source = str(path.with_suffix(".dcp"))
        tool = [sys.executable, "tools/export_checkpoint.py", source, str(exported)]
        subprocess.run(tool, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        path = exported
    return torch.load(path, weights_only=True)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return the keys at which two checkpoints differ, ignoring the text of their configs."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype
        return [] if same and torch.equal(one, other) else [where]
    if isinstance(one, dict):
        if not isinstance(other, dict) or one.keys() != other.keys():
            return [where]
        keys = [key for key in one if key != "cfg"]
        return [d for key in keys for d in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, (list, tuple)):
        if not isinstance(other, (list, tuple)) or len(one) != len(other):
            return [where]
        pairs = enumerate(zip(one, other, strict=True))
        return [d for n, (a, b) in pairs for d in differences(a, b, f"{where}/{n}")]
    return [] if one == other else [where]


def plan(count: int, num_processes: int, seed: int) -> list[Trial]:
    """Draw the trials; every third one kills the run while it writes a checkpoint."""
    draw = random.Random(seed)
    return [
        Trial(
            number=number,
            while_writing=number % 3 == 2,
            after=draw.random(),
            victim=draw.randrange(-1, num_processes),
            workers=(draw.randrange(3), draw.randrange(3)),
        )
        for number in range(count)
    ]


def run_trial(campaign: Campaign, trial: Trial, expected: dict[str, Any]) -> tuple[bool, str, str]:
    """Kill and resume; return whether the result is the same, a line about it, and what was hit."""
    output = campaign.folder / f"trial_{trial.number:03d}"
    where = campaign.kill(output, trial)
    left = [p.name for p in (output / "checkpoints").glob("*") if is_unfinished(p)]
    found = campaign.finish(output, trial.workers[1])
    resumed = re.findall(r"resumed after (.+) from", log_of(output)) or ["the start"]
    bad = differences(expected, found)
    hit = "ended before" if not where else "a half-written checkpoint" if left else "training"
    who = "all" if trial.victim < 0 or campaign.num_processes == 1 else f"rank {trial.victim}"
    line = (
        f"{trial.number:3d}  killed {who} at {where or 'its end'} ({hit}), went on after "
        f"{resumed[-1]}, loader processes {trial.workers[0]} then {trial.workers[1]}: "
        + ("the same bits" if not bad else f"DIFFERS in {len(bad)}, first {bad[:3]}")
    )
    shutil.rmtree(output)
    return not bad, line, hit


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1, help="number in a run (1)")
    parser.add_argument("--strategy", default="ddp", help="DIST.STRATEGY of several processes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    began, hits, num_same = time.monotonic(), [], 0
    with tempfile.TemporaryDirectory(prefix="kills_") as folder:
        campaign = Campaign(Path(folder), arguments.processes, arguments.strategy)
        expected = campaign.reference()
        print(
            f"a run nobody kills: {campaign.num_iterations} iterations of "
            f"{campaign.iteration_sec:.2f} s",
            flush=True,
        )
        for trial in plan(arguments.kills, arguments.processes, arguments.seed):
            same, line, hit = run_trial(campaign, trial, expected)
            num_same += same
            hits.append(hit)
            print(line, flush=True)
    counts = ", ".join(f"{hits.count(hit)} {hit}" for hit in sorted(set(hits)))
    print(
        f"{num_same} of {arguments.kills} killed runs ended with the bits of the one nobody killed "
        f"({counts}; {arguments.processes} processes; {time.monotonic() - began:.0f} s)"
    )
    return int(num_same < arguments.kills)


if __name__ == "__main__":
    sys.exit(main())
