"""Measure rows in interleaved rounds; results are saved after each row, and a run goes on there."""

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import simplejson
import torch

from hiera_video.benchmark.ablation.measure import Figure, Job, measure
from hiera_video.benchmark.ablation.rows import Cost, Row, config_of, cost_of
from hiera_video.config.describe import to_yaml
from hiera_video.utils import disk, io
from hiera_video.utils.errors import UserError
from hiera_video.version import __version__

RESULTS_FILE = "results.json"
PEERS = ("hiera-transformer", "pytorchvideo", "timm", "torchvision", "transformers")
AUTO = 0  # the batch size that stands for the largest that fits
_LARGEST_BATCH = 64


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure: `what` of WHAT for all rows, in `rounds` rounds.

    `batch_size` AUTO takes the largest power of 2 that fits into `memory_limit_gib` (0: into the
    memory that there is). `seconds` is the time of one figure.
    """

    rows: tuple[Row, ...]
    overrides: tuple[str, ...]
    what: tuple[str, ...]
    rounds: int
    batch_size: int
    device: str
    bfloat16: bool
    threads: int
    seconds: float = 2.0
    memory_limit_gib: float = 0.0


@dataclass(slots=True)
class Results:
    """All figures: `rounds[i][row][what]` holds the seconds of a clip.

    `batches` and `peaks` (bytes) are by row and what; `notes` say why a row has no figure.
    """

    made_with: dict[str, Any]
    machine: dict[str, str]
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: dict[str, dict[str, int]] = field(default_factory=dict)
    peaks: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    rounds: list[dict[str, dict[str, float]]] = field(default_factory=list)

    def save(self, folder: str) -> None:
        """Write the results to the folder; a reader finds the old file or the new one."""
        text = simplejson.dumps(asdict(self), indent=1)
        disk.write_atomic(
            os.path.join(folder, RESULTS_FILE), lambda file: file.write(text.encode())
        )


def read_results(path: str) -> Results:
    """Read the results of an earlier run, finished or not.

    Raises:
        UserError: the file cannot be read, or is no such file.
    """
    try:
        with io.open_file(path) as file:
            return Results(**simplejson.load(file))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path!r} must be the results of an ablation ({error}).") from None


def take_rounds(request: Request, folder: str, say: Callable[[str], None]) -> Results:
    """Measure all that is missing in `folder`; return the results so far at Ctrl-C, too.

    Raises:
        UserError: the folder holds results of other settings.
    """
    results = _begin(request, folder)
    try:
        for row in request.rows:
            if row.name not in results.costs:
                cost = cost_of(row, request.overrides)
                results.costs[row.name] = asdict(cost)
                say(f"{row.name}: {_in_words(cost)}")
                results.save(folder)
        for number in range(request.rounds):
            if number == len(results.rounds):
                results.rounds.append({})
            _take_round(request, results, number, folder, say)
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
    return results


def _take_round(
    request: Request, results: Results, number: int, folder: str, say: Callable[[str], None]
) -> None:
    rows = request.rows
    shift = number % len(rows)
    for row in (*rows[shift:], *rows[:shift]):  # another order each round
        done = results.rounds[number].setdefault(row.name, {})
        notes = results.notes.setdefault(row.name, {})
        if results.costs[row.name]["note"]:
            continue
        for what in request.what:
            if what in done or what in notes or not row.path_of(what):
                continue
            figure = _figure(request, results, row, what)
            if figure.note:
                notes[what] = figure.note
                say(f"round {number + 1}, {row.name}, {what}: {figure.note}")
            else:
                done[what] = figure.clip_sec
                if figure.peak_bytes:
                    results.peaks.setdefault(row.name, {})[what] = figure.peak_bytes
                say(f"round {number + 1}, {row.name}, {what}: {1 / figure.clip_sec:.3g} clips/s")
            results.save(folder)


def _figure(request: Request, results: Results, row: Row, what: str) -> Figure:
    try:
        cfg = config_of(row.path_of(what), request.overrides)
    except UserError as error:
        return Figure(note=str(error).splitlines()[-1].strip())
    batches = results.batches.setdefault(row.name, {})
    job = Job(
        cfg=cfg,
        what=what,
        batch_size=batches.get(what) or request.batch_size or _LARGEST_BATCH,
        device=request.device,
        bfloat16=request.bfloat16,
        threads=request.threads,
        seconds=request.seconds,
        weigh=what not in results.peaks.get(row.name, {}),
        memory_limit_gib=request.memory_limit_gib,
    )
    figure = measure(job)
    while figure.out_of_memory and request.batch_size == AUTO and job.batch_size > 1:
        job = replace(job, batch_size=job.batch_size // 2)
        figure = measure(job)
    if not figure.note:
        batches[what] = job.batch_size
    return figure


def _begin(request: Request, folder: str) -> Results:
    """Return the results in the folder, or empty ones."""
    made_with = _made_with(request)
    path = os.path.join(folder, RESULTS_FILE)
    if not io.is_file(path):
        return Results(made_with, machine_facts(request.device, request.threads))
    results = read_results(path)
    if results.made_with != made_with:
        raise UserError(
            f"--output must be a folder without results of other settings, got {folder!r}. Try "
            "--restart, or another folder."
        )
    return results


def _made_with(request: Request) -> dict[str, Any]:
    """Return what has to be equal for a run to go on; the number of rounds may grow."""
    configs = {}
    for row in request.rows:
        for path in filter(None, (row.fine_tune, row.pretrain)):
            try:
                configs[path] = to_yaml(config_of(path, request.overrides))
            except UserError as error:
                configs[path] = str(error)
    made_with = asdict(request) | {"configs": configs}
    del made_with["rounds"]
    return simplejson.loads(simplejson.dumps(made_with))


def machine_facts(device: str, threads: int) -> dict[str, str]:
    """Return what stands under a table: processor or GPU, threads, versions."""
    where = _processor()
    if device == "cuda":
        where = torch.cuda.get_device_name()
    facts = {
        "device": where,
        "threads": str(threads or torch.get_num_threads()),
        "torch": torch.__version__,
        "hiera_video": __version__,
    }
    for package in PEERS:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _in_words(cost: Cost) -> str:
    if cost.note:
        return cost.note
    return f"{cost.parameters / 1e6:.1f} M parameters, {cost.multiply_adds / 1e9:.2f} GFLOPs"


def nothing_measured(results: Results) -> bool:
    """Whether no row has any figure."""
    return not any(found for taken in results.rounds for found in taken.values())
