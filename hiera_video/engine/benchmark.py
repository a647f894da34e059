"""Timings that mean something on a noisy machine: interleaved runs, medians, ratios, the floor."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hiera_video.utils.compat import import_torchvision
from hiera_video.utils.errors import UserError


def interleaved_seconds(
    runs: Mapping[str, Callable[[], object]], *, repeats: int
) -> dict[str, list[float]]:
    """Time each run `repeats` times, taking turns, after one warm-up each; seconds per run.

    Taking turns gives all of them the same share of whatever else the machine is doing.
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


def matmul_run(size: int = 2048) -> tuple[Callable[[], object], float]:
    """Return a square float32 matrix product to time, and its operations (multiplies and adds)."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return lambda: left @ right, 2.0 * size**3


def forward_operations(model: nn.Module, clips: torch.Tensor) -> float:
    """Return the multiplies and adds of a forward pass, attention counted, by PyTorch's counter.

    Counted on the meta device, where attention is plain matrix products and none is skipped.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta")(clips.to("meta"))
    return float(counter.get_total_flops())


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models' forward passes on the same clips, in one process.

    Seconds are medians; `ratio` is the median over rounds of theirs / ours; `floor_sec` is the
    operations over the measured matmul rate.
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
    """Time two models that hold the same weights; ours gives logits, theirs probabilities."""
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


def published_model(name: str) -> nn.Module:
    """Build a model of the authors' package with fresh weights.

    Raises:
        UserError: the package, an optional extra, is not installed, or lacks the model.
    """
    import_torchvision()  # it imports torchvision through timm
    try:
        import hiera
    except ImportError:
        raise UserError(
            "the published package is not installed. Try pip install -e '.[peers]'."
        ) from None
    if not hasattr(hiera, name):
        raise UserError(f"--model must be a model of the published package, got {name!r}.")
    return getattr(hiera, name)(pretrained=False).eval()
