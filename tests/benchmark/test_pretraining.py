import time
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from hiera_video.benchmark.pretraining import compare_steps, step_operations
from hiera_video.models import masking
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.models.parts.visible import draw_decoded


class Published(nn.Module):
    """Our own model behind the published one's signature, and slower."""

    def __init__(self, model, delay_sec):
        super().__init__()
        self.model, self.delay_sec = model, delay_sec

    def forward(self, clips, mask):
        time.sleep(self.delay_sec)
        return tuple(self.model(clips, mask))


def test_steps_take_turns_with_the_same_weights_and_masks():
    model = mae_hiera_micro_8x64()
    result = compare_steps(
        model,
        Published(model, 0.5),
        torch.randn(1, 3, 8, 64, 64),
        mask_ratio=0.75,
        keep_ratio=0.5,
        repeats=2,
        autocast=nullcontext,
    )
    assert result.losses["ours"] == result.losses["published"]
    assert result.losses["ours, decoding part"] != result.losses["ours"]
    assert [len(ratios) for ratios in result.ratios.values()] == [2, 2, 2]
    assert set(result.ratios["published"]) == {1.0}
    assert min(result.ratios["ours"]) > 1.5
    assert result.seconds["published"] > 0.5
    assert 0 < result.floor_sec["ours, decoding part"] < result.floor_sec["ours"]
    assert all(parameter.grad is None for parameter in model.parameters())
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert result.peak_bytes["ours, decoding part"] < result.peak_bytes["ours"]
    assert result.peak_bytes["ours"] > 2 * weights  # and their gradients
    assert not result.missing


class TooLarge(nn.Module):
    def forward(self, clips, mask):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def test_a_step_that_the_gpu_has_no_room_for_is_left_out():
    result = compare_steps(
        mae_hiera_micro_8x64(),
        TooLarge(),
        torch.randn(1, 3, 8, 64, 64),
        mask_ratio=0.75,
        keep_ratio=0.5,
        repeats=1,
        autocast=nullcontext,
    )
    assert result.missing == {"published": "out of GPU memory"}
    assert list(result.seconds) == ["ours", "ours, decoding part"]
    assert result.ratios["ours"] == ()


def test_operations_of_a_step_are_three_forward_passes_of_matrix_products():
    model = mae_hiera_micro_8x64()
    clips = torch.randn(1, 3, 8, 64, 64)
    visible = masking.random(model.unit_grid, num_clips=1, ratio=0.75)
    whole = step_operations(model, clips, visible, None)
    half = step_operations(model, clips, visible, draw_decoded(visible, keep_ratio=0.5))
    # 64 decoder tokens of 128 channels: 2 blocks of 12 D^2 products and of attention 2 N D each.
    tokens, dim = 64, 128
    decoder = 2 * tokens * (12 * dim**2 + 2 * tokens * dim)
    assert whole > 3 * 2 * decoder
    # 48 hidden tokens; 24 of them leave 40 to the decoder.
    kept = 2 * 40 * (12 * dim**2 + 2 * 40 * dim)
    last_layer = 24 * dim * 16 * 16 * 3
    assert whole - half == pytest.approx(3 * 2 * (decoder - kept + last_layer))
