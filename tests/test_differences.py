"""Recompute figures of docs/differences.md; other programs' behaviour is written as formulas."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from hiera_video.config import load_config
from hiera_video.data.sampling import ClipSpec, uniform_indices
from hiera_video.data.sampling import testing_indices as indices_of_test
from hiera_video.data.transforms import geometric
from hiera_video.data.transforms.crops import resize, resize_short_side, spatial_crops
from hiera_video.solver.build import build_lr_schedule

ROOT = Path(__file__).parents[1]
DENSE = ClipSpec(16, 4, 30)
UNIFORM = ClipSpec(16, 4, 30, "uniform")
FILL = (115.0, 115.0, 115.0)


def picture(height: int, width: int) -> torch.Tensor:
    """Noise whose amplitude falls with the frequency, uint8 [1, 3, H, W]."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    planes = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
        plane = np.fft.irfft2(spectrum, s=(height, width))
        planes.append(plane / plane.std() * 50 + 115)
    return torch.from_numpy(np.clip(np.rint(planes), 0, 255).astype(np.uint8))[None]


def row(numbers) -> str:
    return ", ".join(str(int(number)) for number in numbers)


def ends(numbers) -> str:
    """Return the first two numbers of a row, as the page abbreviates it."""
    return f"{row(numbers[:2])}, ..."


def spacing() -> list[str]:
    theirs = torch.linspace(0, 4 * 16 - 1, 16).long().numpy()
    ours = indices_of_test(DENSE, 61, 30, num_clips=1)[0]
    return [
        f"{row(theirs)} there and {row(ours[:3])}, ... {ours[-1]} here",
        f"at most {abs(theirs - ours).max()} frames",
    ]


def places_of_clips() -> list[str]:
    left = 300 - 4 * 16
    ours = indices_of_test(DENSE, 300, 30, num_clips=5)[:, 0]
    (one,) = indices_of_test(DENSE, 300, 30, num_clips=1)[:, 0]
    return [
        f"start at {row(left * k / 5 for k in range(5))} there, with the key at "
        f"{row(k * (left // 4) for k in range(5))}, here at {row(ours)}",
        f"it starts at 0 or {left // 2} there, at {one} here",
    ]


def uniform() -> list[str]:
    segment = 63 / 16
    borders = [int(np.round(segment * i)) for i in range(17)]
    theirs = [(start + end) // 2 for start, end in pairwise(borders)]
    ours = uniform_indices(64, num_frames=16)
    two = indices_of_test(UNIFORM, 64, 30, num_clips=2)
    videomae = [[int(4 * i) for i in range(16)], [int(2 + 4 * i) for i in range(16)]]
    return [
        f"{row(theirs[:3])}, ... {row(theirs[-2:])} there and {row(ours[:3])}, ... "
        f"{row(ours[-2:])} here",
        f"{ends(videomae[0])} and {ends(videomae[1])} in VideoMAE, {ends(two[0])} and "
        f"{ends(two[1])} here",
    ]


def resizing() -> list[str]:
    levels = []
    for height, width in ((256, 340), (1080, 1920)):
        frame = picture(height, width).float()
        size = (224, width * 224 // height)
        plain = F.interpolate(frame, size=size, mode="bilinear", align_corners=False)
        smooth = resize(frame, height=size[0], width=size[1])
        levels.append((plain - smooth).abs().mean().item())
    return [f"{levels[0]:.1f} levels (mean) from 256, {levels[1]:.1f} from 1080"]


def one_crop() -> list[str]:
    resized = resize_short_side(torch.zeros(1, 3, 256, 340, dtype=torch.uint8), 224)
    (view,) = spatial_crops(resized, size=224, num_crops=1)
    ours = view[0, 0].numel() / resized[0, 0].numel()
    return [f"the view is {224 * 224 / (256 * 340):.1%} there and {ours:.1%} here"]


def turned() -> list[str]:
    white = torch.full((1, 3, 256, 340), 255, dtype=torch.uint8)
    square = geometric.rotate(white[..., :224, :224], 21.0, fill=(0.0,) * 3)
    theirs = geometric.rotate(white, 21.0, fill=(0.0,) * 3)[..., 16:240, 58:282]
    fills = [(frames == 0).float().mean().item() for frames in (square, theirs)]
    frame = picture(224, 224)
    ours = geometric.rotate(frame, 21.0, fill=FILL)[0].permute(1, 2, 0).numpy().astype(int)
    inside = (square[0, 0] == 255).numpy()
    image = Image.fromarray(frame[0].permute(1, 2, 0).numpy())
    levels = []
    for method in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR):
        other = np.asarray(image.rotate(21.0, resample=method, fillcolor=(128,) * 3)).astype(int)
        levels.append(abs(other - ours)[inside].mean())
    return [
        f"leaves {fills[0]:.1%} of the view to the fill colour here, and {fills[1]:.1%} of a "
        "centre crop",
        f"{levels[0]:.1f} levels (mean) from Pillow's bicubic, {levels[1]:.1f} from its bilinear",
    ]


def fill() -> list[str]:
    mean = 0.45 * 255
    return [f"{128 - round(mean)} levels, {(128 - mean) / 255 / 0.225:.2f} after normalisation"]


def rates() -> list[str]:
    config = str(ROOT / "configs/Kinetics/HIERA_B.yaml")
    cfg = load_config(config, ["TRAIN.BATCH_SIZE", "8", "SOLVER.ACCUM_STEPS", "1"])
    peak = build_lr_schedule(cfg)(cfg.SOLVER.WARMUP_EPOCHS)
    begun = (1 + math.cos(math.pi * 5 / 75)) / 2
    return [
        f"`TRAIN.BATCH_SIZE 8 SOLVER.ACCUM_STEPS 1`: {peak:.2g} here instead of "
        f"{cfg.SOLVER.BASE_LR:g}",
        f"the highest rate is {begun:.3f} of",
    ]


def decay() -> list[str]:
    cfg = load_config(str(ROOT / "configs/Kinetics/HIERA_B_MAE_PT.yaml"))
    lr_at = build_lr_schedule(cfg)
    steps = 240_000 // 512
    epochs = np.arange(cfg.SOLVER.MAX_EPOCH) + 0.5
    factors = [steps * math.log1p(-lr_at(epoch) * cfg.SOLVER.WEIGHT_DECAY) for epoch in epochs]
    return [
        f"{len(epochs)} epochs of 240,000 videos would shrink it to {math.exp(sum(factors)):.1g}"
    ]


@pytest.mark.parametrize(
    "figures",
    [spacing, places_of_clips, uniform, resizing, one_crop, turned, fill, rates, decay],
)
def test_the_page_tells_what_is_so(figures):
    page = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    for figure in figures():
        assert figure.replace("%", " %") in page
