"""Measure one row in a process of its own, which a memory limit or a crash may end.

Shape suffixes: B clips, T frames, C colours, H height, W width.
"""

import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from hiera_video.benchmark.ablation.rows import INFERENCE
from hiera_video.benchmark.timing import peak_bytes, state_bytes, wait_for
from hiera_video.benchmark.train.step import InMemory, Stepper
from hiera_video.config import Config
from hiera_video.data.loader import Batch
from hiera_video.engine.tasks import build_task
from hiera_video.models.build import build_model
from hiera_video.models.parts.scores import autocast
from hiera_video.solver.build import build_lr_schedule, build_optimizer
from hiera_video.utils.errors import UserError, first_line

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Job:
    """What one process measures: `what` of WHAT, of a config.

    A figure is the median of as many steps as fit in `seconds`, at least one, after a warm-up.
    With `weigh`, the peak of memory is measured too. `memory_limit_gib` 0 sets no limit.
    """

    cfg: Config
    what: str
    batch_size: int
    device: str
    bfloat16: bool
    threads: int
    seconds: float
    weigh: bool = False
    memory_limit_gib: float = 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """Seconds of one clip and the peak of bytes; or the reason why there is none."""

    clip_sec: float = 0.0
    peak_bytes: int = 0
    note: str = ""
    out_of_memory: bool = False


def measure(job: Job) -> Figure:
    """Run a job in a new process; return its figure."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, job), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        return Figure(
            note=f"its process ended with status {process.exitcode}, probably for lack of memory",
            out_of_memory=True,
        )
    finally:
        process.kill()
        process.join()
        ours.close()


def _answer(connection: Connection, job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    try:
        figure = _measure(job)
    except UserError as error:
        figure = Figure(note=str(error).splitlines()[-1].strip())
    except (MemoryError, RuntimeError) as error:
        text = first_line(error)
        short = isinstance(error, MemoryError) or "memory" in text.lower()
        figure = Figure(note="not enough memory" if short else text, out_of_memory=short)
    connection.send(figure)


def _measure(job: Job) -> Figure:
    device = torch.device(job.device)
    _limit_memory(job, device)
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    model = build_model(job.cfg).to(device)
    make = _inference if job.what == INFERENCE else _training
    run, kept_bytes = make(job, model, device)
    run()
    taken: list[float] = []
    begun = time.perf_counter()
    while not taken or time.perf_counter() - begun < job.seconds:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    peak = kept_bytes() + peak_bytes(run, device) if job.weigh else 0
    return Figure(statistics.median(taken) / job.batch_size, peak)


def _inference(
    job: Job, model: nn.Module, device: torch.device
) -> tuple[Callable[[], object], Callable[[], int]]:
    model.eval()
    clips_BCTHW = _clips(job).to(device)

    def run() -> None:
        with torch.inference_mode(), autocast(device, enabled=job.bfloat16):
            model(clips_BCTHW)
        wait_for(device)

    return run, lambda: state_bytes(model) + clips_BCTHW.nbytes


def _training(
    job: Job, model: nn.Module, device: torch.device
) -> tuple[Callable[[], object], Callable[[], int]]:
    model.train()
    cfg = job.cfg
    clips_BCTHW = _clips(job)
    videos_B = torch.arange(job.batch_size)
    labels_B = videos_B % cfg.MODEL.NUM_CLASSES
    batch = Batch(clips_BCTHW, labels_B, videos_B, (), job.batch_size).to(device)
    feed = InMemory(batch)
    optimizer = build_optimizer(cfg, model)
    stepper = Stepper(
        model=model,
        wrapped=model,
        task=build_task(cfg, model),
        optimizer=optimizer,
        device=device,
        bfloat16=job.bfloat16,
        lr=build_lr_schedule(cfg)(cfg.SOLVER.WARMUP_EPOCHS),
        clip_norm=cfg.SOLVER.CLIP_GRAD_L2NORM or float("inf"),
    )
    return lambda: stepper.step(feed), lambda: state_bytes(model, optimizer) + feed.held_bytes


def _clips(job: Job) -> torch.Tensor:
    size = job.cfg.DATA.TRAIN_CROP_SIZE
    return torch.randn(job.batch_size, 3, job.cfg.DATA.NUM_FRAMES, size, size)


def _limit_memory(job: Job, device: torch.device) -> None:
    """Limit the memory of this process, where a limit is given."""
    if not job.memory_limit_gib:
        return
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(job.memory_limit_gib * _GIB / whole, 1.0))
        return
    import resource  # not on Windows

    limit = int(job.memory_limit_gib * _GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
