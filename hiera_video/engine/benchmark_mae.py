"""One pretraining step, ours against the published package's, with the same weights and masks.

Shape suffixes: B clips, U mask units.
"""

import copy
import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hiera_video.engine.benchmark import interleaved_seconds, matmul_run
from hiera_video.models import masking
from hiera_video.models.hiera_mae import MaskedAutoencoderHiera
from hiera_video.models.visible import draw_decoded

Loss = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class StepComparison:
    """Forward and backward of several runs in turns, in one process.

    By the name of a run: `losses`, median `seconds`, `ratios` of the published step's seconds over
    its own, round by round. `floor_sec` holds operations over the measured matmul rate.
    """

    losses: dict[str, float]
    seconds: dict[str, float]
    ratios: dict[str, tuple[float, ...]]
    floor_sec: dict[str, float]
    matmul_gflops: float


def compare_steps(
    ours: MaskedAutoencoderHiera,
    theirs: nn.Module,
    clips_BX: torch.Tensor,
    *,
    mask_ratio: float,
    keep_ratio: float,
    repeats: int,
    autocast: Callable[[], AbstractContextManager[object]],
    seed: int = 0,
) -> StepComparison:
    """Time a step of the published model, of ours, and of ours with `keep_ratio` decoded.

    Both models hold the same weights already, and see the same mask units.
    """
    generator = torch.Generator().manual_seed(seed)
    visible_BU = masking.random(
        ours.unit_grid, num_clips=len(clips_BX), ratio=mask_ratio, generator=generator
    )
    decoded_BU = draw_decoded(visible_BU, keep_ratio=keep_ratio, generator=generator)
    on_device_BU = visible_BU.to(clips_BX.device)
    losses: dict[str, Loss] = {
        "published": lambda: theirs(clips_BX, mask=on_device_BU)[0],
        "ours": lambda: ours(clips_BX, visible_BU).loss,
        "ours, decoding part": lambda: ours(clips_BX, visible_BU, decoded=decoded_BU).loss,
    }
    models: Mapping[str, nn.Module] = dict(zip(losses, (theirs, ours, ours), strict=True))
    runs: dict[str, Callable[[], object]] = {
        name: _step(models[name], loss, autocast) for name, loss in losses.items()
    }
    with autocast():
        values = {name: loss().item() for name, loss in losses.items()}
    product, product_operations = matmul_run()
    seconds = interleaved_seconds({**runs, "matmul": product}, repeats=repeats)
    rate = product_operations / statistics.median(seconds["matmul"])
    return StepComparison(
        losses=values,
        seconds={name: statistics.median(seconds[name]) for name in runs},
        ratios={
            name: tuple(t / o for t, o in zip(seconds["published"], seconds[name], strict=True))
            for name in runs
        },
        floor_sec={
            name: step_operations(ours, clips_BX, visible_BU, decoded) / rate
            for name, decoded in (("ours", None), ("ours, decoding part", decoded_BU))
        },
        matmul_gflops=rate / 1e9,
    )


def step_operations(
    model: MaskedAutoencoderHiera,
    clips_BX: torch.Tensor,
    visible_BU: torch.Tensor,
    decoded_BU: torch.Tensor | None,
) -> float:
    """Return the multiplies and adds of a forward pass and its backward pass, attention counted.

    Counted on the meta device, by PyTorch's counter; a backward pass costs two forward ones.
    """
    weightless = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        weightless(clips_BX.to("meta"), visible_BU, decoded=decoded_BU)
    return 3.0 * counter.get_total_flops()


def _step(
    model: nn.Module, loss: Loss, autocast: Callable[[], AbstractContextManager[object]]
) -> Callable[[], object]:
    def run() -> None:
        with autocast():
            value = loss()
        value.backward()
        model.zero_grad(set_to_none=True)

    return run
