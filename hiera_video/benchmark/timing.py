"""Measure time on a noisy machine: interleaved runs, medians, ratios, and a floor."""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from hiera_video.utils.compat import import_torchvision
from hiera_video.utils.errors import UserError


def interleaved_seconds(
    runs: Mapping[str, Callable[[], object]], *, repeats: int
) -> dict[str, list[float]]:
    """Time each run `repeats` times, in turns, after one warm-up each; return the seconds.

    Interleaving spreads the other load of the machine evenly over the runs.
    """
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


CPU = torch.device("cpu")


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work; no-op on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_run(
    size: int | None = None, *, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> tuple[Callable[[], object], float]:
    """Return a function that multiplies square matrices, and its multiplies and adds.

    On a CPU it multiplies once, 2048 x 2048, or less if that takes longer than a second. A GPU
    needs more work to be busy: there it multiplies several times, 8192 x 8192.
    """
    on_gpu = device.type == "cuda"
    size, times = size or (8192 if on_gpu else _cpu_size(dtype)), 10 if on_gpu else 1
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def run() -> None:
        for _ in range(times):
            torch.mm(left, right)
        wait_for(device)

    return run, times * 2.0 * size**3


def _cpu_size(dtype: torch.dtype) -> int:
    """Return a size of square matrices whose product takes about a second or less.

    A processor without bfloat16 instructions multiplies bfloat16 a hundred times more slowly.
    """
    small = 256
    run, _ = matmul_run(small, dtype=dtype)
    seconds = min(interleaved_seconds({"small": run}, repeats=2)["small"])
    return next((s for s in (2048, 1024, 512) if seconds * (s / small) ** 3 < 1), small)


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the bytes that `run` allocates, on top of existing tensors.

    On a GPU, PyTorch's allocator measures it. On a CPU its profiler does, which slows the run.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler logs each start
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        with open(file.name, encoding="utf-8", errors="replace") as trace:
            events = json.load(trace)["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def state_bytes(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Return the bytes of a model's weights and buffers and of its optimizer's state."""
    kept = list(model.parameters()) + list(model.buffers())
    if optimizer is not None:
        kept += [
            value
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        ]
    return sum(tensor.nbytes for tensor in kept)


def machine(device: torch.device = CPU) -> str:
    """Return a line on the device that the figures were measured on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return (
        f"CPU ({platform.machine()}), {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def spread(ratios: Sequence[float]) -> str:
    """Return the ratios of all rounds in ascending order."""
    return " ".join(f"{ratio:.2f}" for ratio in sorted(ratios))


def forward_operations(model: nn.Module, clips: torch.Tensor) -> float:
    """Return the multiplies and adds of a forward pass, attention included.

    PyTorch's counter counts them on the meta device, where attention consists of plain matrix
    products, so that none is missed.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta")(clips.to("meta"))
    return float(counter.get_total_flops())


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figures of two models' forward passes on the same clips, in one process.

    Seconds are medians. `ratio` is the median over rounds of theirs / ours. `floor_sec` is the
    number of operations over the measured matmul rate.
    """

    ours_sec: float
    theirs_sec: float
    ratio: float
    ratios: tuple[float, ...]
    floor_sec: float
    matmul_gflops: float
    max_difference: float


def compare_forward(
    ours: nn.Module,
    theirs: nn.Module,
    clips_BCTHW: torch.Tensor,
    *,
    operations: float,
    repeats: int,
) -> Comparison:
    """Time two models with the same weights; ours returns logits, theirs probabilities."""
    product, product_operations = matmul_run()
    with torch.inference_mode():
        difference = ours(clips_BCTHW).log_softmax(-1) - theirs(clips_BCTHW).log()
        seconds = interleaved_seconds(
            {
                "ours": lambda: ours(clips_BCTHW),
                "theirs": lambda: theirs(clips_BCTHW),
                "matmul": product,
            },
            repeats=repeats,
        )
    rate = product_operations / statistics.median(seconds["matmul"])
    ratios = [t / o for t, o in zip(seconds["theirs"], seconds["ours"], strict=True)]
    return Comparison(
        ours_sec=statistics.median(seconds["ours"]),
        theirs_sec=statistics.median(seconds["theirs"]),
        ratio=statistics.median(ratios),
        ratios=tuple(ratios),
        floor_sec=operations / rate,
        matmul_gflops=rate / 1e9,
        max_difference=difference.abs().max().item(),
    )


def published_model(name: str, **settings: Any) -> nn.Module:
    """Build a model of the authors' package with fresh weights, passing it `settings`.

    Raises:
        UserError: the package, an optional extra, is not installed, or lacks the model.
    """
    import_torchvision()  # the package imports torchvision through timm
    try:
        import hiera
    except ImportError:
        raise UserError(
            "the published package is not installed. Try pip install -e '.[peers]'."
        ) from None
    if not hasattr(hiera, name):
        raise UserError(f"--model must be a model of the published package, got {name!r}.")
    return getattr(hiera, name)(pretrained=False, **settings).eval()
