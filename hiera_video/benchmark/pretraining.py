"""Time a pretraining step against the published package's, with the same weights and masks.

Shape suffixes: B clips, U mask units.
"""

import copy
import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hiera_video.benchmark.forward import random_clips
from hiera_video.benchmark.timing import (
    CPU,
    interleaved_seconds,
    machine,
    matmul_run,
    peak_bytes,
    published_model,
    spread,
    state_bytes,
    wait_for,
)
from hiera_video.models import masking
from hiera_video.models.parts.autoencoder import MaskedAutoencoder
from hiera_video.models.parts.scores import autocast
from hiera_video.models.parts.visible import draw_decoded

PUBLISHED = "published"
Loss = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class StepComparison:
    """Figures of several runs of forward and backward, interleaved in one process.

    All are keyed by the name of a run. `losses` and `seconds` (medians) are of one step. `ratios`
    are the published step's seconds over the run's own, round by round. `floor_sec` is the number
    of operations over the measured matmul rate. `peak_bytes` is the peak of weights, gradients and
    activations. `missing` gives the reason why a run has no figures: no room on the GPU.
    """

    losses: dict[str, float]
    seconds: dict[str, float]
    ratios: dict[str, tuple[float, ...]]
    floor_sec: dict[str, float]
    matmul_gflops: float
    peak_bytes: dict[str, int]
    missing: dict[str, str]


def pretraining_report(
    name: str,
    make: Callable[[], MaskedAutoencoder],
    *,
    num_clips: int,
    mask_ratio: float,
    keep_ratio: float,
    repeats: int,
    device: torch.device,
    bfloat16: bool,
) -> str:
    """Time a step of the model `name`, made by `make`, and the published one's; return the figures.

    Both have the same weights and masks.
    """
    theirs, ours = published_model(name).train(), make().train()
    ours.load_state_dict(theirs.state_dict())
    result = compare_steps(
        ours.to(device),
        theirs.to(device),
        random_clips(ours, num_clips).to(device),
        mask_ratio=mask_ratio,
        keep_ratio=keep_ratio,
        repeats=repeats,
        autocast=lambda: autocast(device, enabled=bfloat16),
        device=device,
        # A CPU may emulate bfloat16 products; float32 is the better measure there.
        dtype=torch.bfloat16 if bfloat16 and device.type == "cuda" else torch.float32,
    )
    precision = "bfloat16 autocast" if bfloat16 else "float32"
    return (
        f"{name}, forward and backward of {num_clips} clips, mask ratio {mask_ratio}, decoding "
        f"part: {keep_ratio} of the hidden units, {precision}, {machine(device)}, "
        f"hiera-transformer {version('hiera-transformer')}\n{render_steps(result, num_clips)}"
    )


def render_steps(result: StepComparison, num_clips: int) -> str:
    """Return a line for each run, and how the floor was measured."""
    lines = [f"  {name:<20}{reason}" for name, reason in result.missing.items()]
    for name, sec in result.seconds.items():
        line = (
            f"  {name:<20}{sec:8.3f} s {num_clips / sec:8.2f} clips/s "
            f"{result.peak_bytes[name] / 2**30:6.2f} GiB   loss {result.losses[name]:.6f}"
        )
        if name in result.floor_sec:
            line += (
                f"   floor {result.floor_sec[name]:.3f} s   {result.floor_sec[name] / sec:.0%} of "
                "it (share of peak)"
            )
        if name in result.floor_sec and result.ratios[name]:
            line += (
                f"   ratio published / this {statistics.median(result.ratios[name]):.2f} "
                f"(rounds: {spread(result.ratios[name])})"
            )
        lines.append(line)
    lines.append(
        f"  floor: operations at the {result.matmul_gflops:.0f} GFLOP/s of a matrix product in "
        "the same rounds"
    )
    return "\n".join(lines)


def compare_steps(
    ours: MaskedAutoencoder,
    theirs: nn.Module,
    clips_BX: torch.Tensor,
    *,
    mask_ratio: float,
    keep_ratio: float,
    repeats: int,
    autocast: Callable[[], AbstractContextManager[object]],
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> StepComparison:
    """Time a step of the published model, of ours, and of ours that decodes only `keep_ratio`.

    Both models already hold the same weights, and they see the same mask units. Models and clips
    are on `device`. `dtype` is that of the matrix product from which the floor is computed.
    """
    generator = torch.Generator().manual_seed(seed)
    visible_BU = masking.random(
        ours.unit_grid, num_clips=len(clips_BX), ratio=mask_ratio, generator=generator
    )
    decoded_BU = draw_decoded(visible_BU, keep_ratio=keep_ratio, generator=generator)
    on_device_BU = visible_BU.to(device)
    losses: dict[str, Loss] = {
        PUBLISHED: lambda: theirs(clips_BX, mask=on_device_BU)[0],
        "ours": lambda: ours(clips_BX, visible_BU).loss,
        "ours, decoding part": lambda: ours(clips_BX, visible_BU, decoded=decoded_BU).loss,
    }
    models: Mapping[str, nn.Module] = dict(zip(losses, (theirs, ours, ours), strict=True))
    runs = {name: _step(models[name], loss, autocast, device) for name, loss in losses.items()}
    missing = _without_room(runs, device)
    runs = {name: run for name, run in runs.items() if name not in missing}
    with autocast(), torch.no_grad():
        values = {name: losses[name]().item() for name in runs}
    product, product_operations = matmul_run(device=device, dtype=dtype)
    seconds = interleaved_seconds({**runs, "matmul": product}, repeats=repeats)
    rate = product_operations / statistics.median(seconds["matmul"])
    published_sec = seconds.get(PUBLISHED, [])
    return StepComparison(
        losses=values,
        seconds={name: statistics.median(seconds[name]) for name in runs},
        ratios={
            name: tuple(t / o for t, o in zip(published_sec, seconds[name], strict=False))
            for name in runs
        },
        floor_sec={
            name: step_operations(ours, clips_BX, visible_BU, decoded) / rate
            for name, decoded in (("ours", None), ("ours, decoding part", decoded_BU))
            if name in runs
        },
        matmul_gflops=rate / 1e9,
        peak_bytes={
            name: state_bytes(models[name]) + clips_BX.nbytes + peak_bytes(run, device)
            for name, run in runs.items()
        },
        missing=missing,
    )


def _without_room(runs: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, str]:
    """Try each run once; return the reason for those that run out of GPU memory."""
    missing = {}
    for name, run in runs.items():
        try:
            run()
        except torch.cuda.OutOfMemoryError:
            missing[name] = "out of GPU memory"
        if missing and device.type == "cuda":
            torch.cuda.empty_cache()  # the exception has freed the run's tensors
    return missing


def step_operations(
    model: MaskedAutoencoder,
    clips_BX: torch.Tensor,
    visible_BU: torch.Tensor,
    decoded_BU: torch.Tensor | None,
) -> float:
    """Return the multiplies and adds of a forward and backward pass, attention included.

    PyTorch's counter counts the forward pass on the meta device; a backward pass costs twice that.
    """
    weightless = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        weightless(clips_BX.to("meta"), visible_BU, decoded=decoded_BU)
    return 3.0 * counter.get_total_flops()


def _step(
    model: nn.Module,
    loss: Loss,
    autocast: Callable[[], AbstractContextManager[object]],
    device: torch.device,
) -> Callable[[], object]:
    def run() -> None:
        try:
            with autocast():
                value = loss()
            value.backward()
        finally:
            model.zero_grad(set_to_none=True)
        wait_for(device)

    return run
