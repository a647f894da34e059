"""The forward pass of a model against the published package's, with the same weights.

Shape suffixes: BX clips, of a video model [B, C, T, H, W].
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from hiera_video.benchmark.timing import (
    compare_forward,
    forward_operations,
    machine,
    published_model,
    spread,
)
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.patches import TakesClips


def forward_report(
    name: str, make: Callable[[], HieraEncoder], *, num_clips: int, repeats: int
) -> str:
    """Time the model `name`, made by `make`, against the published one; return the figures."""
    theirs: Any = published_model(name)
    ours = make().eval()
    # The head is initialised at a thousandth of its scale: all outputs would be nearly equal.
    torch.nn.init.normal_(theirs.head.projection.weight, std=0.02)
    ours.load_state_dict(theirs.state_dict())
    clips_BX = random_clips(ours, num_clips)
    operations = forward_operations(make(), clips_BX)
    result = compare_forward(ours, theirs, clips_BX, operations=operations, repeats=repeats)
    return (
        f"{name}, forward of {num_clips} clips, float32, {machine()}\n"
        f"  ours       {result.ours_sec:6.2f} s\n"
        f"  published  {result.theirs_sec:6.2f} s  (hiera-transformer "
        f"{version('hiera-transformer')})\n"
        f"  floor      {result.floor_sec:6.2f} s  ({operations / 1e9:.0f} GFLOP at the "
        f"{result.matmul_gflops:.0f} GFLOP/s of a matrix product in the same rounds)\n"
        f"  largest difference of the log-probabilities {result.max_difference:.1e}\n"
        f"ratio published / ours: {result.ratio:.2f} "
        f"(median of {repeats} interleaved rounds: {spread(result.ratios)})"
    )


def random_clips(model: TakesClips, num_clips: int) -> torch.Tensor:
    """Return clips of noise in the model's input size."""
    return torch.randn(num_clips, model.in_chans, *model.input_size)
