import sys
import time

import pytest
import torch
from torch import nn

from hiera_video.benchmark import timing
from hiera_video.benchmark.timing import _cpu_size as cpu_size  # before conftest.py replaces it
from hiera_video.models.hiera import hiera_base_16x224, hiera_micro_8x64
from hiera_video.utils.errors import UserError


def test_runs_take_turns_after_a_warm_up():
    calls = []
    runs = {name: (lambda name=name: calls.append(name)) for name in ("a", "b")}
    seconds = timing.interleaved_seconds(runs, repeats=3)
    assert calls == ["a", "b"] + ["a", "b"] * 3
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_the_ratio_is_theirs_over_ours():
    class Slow(nn.Module):
        def __init__(self, model, delay_sec):
            super().__init__()
            self.model, self.delay_sec = model, delay_sec

        def forward(self, clips):
            time.sleep(self.delay_sec)
            return self.model(clips)

    model = hiera_micro_8x64(num_classes=4).eval()
    probabilities = nn.Sequential(model, nn.Softmax(-1))
    clips = torch.randn(1, 3, 8, 64, 64)
    result = timing.compare_forward(
        Slow(model, 0.1), Slow(probabilities, 0.3), clips, operations=1e9, repeats=2
    )
    assert 2 < result.ratio < 3.5
    assert result.max_difference < 1e-5
    assert result.floor_sec == pytest.approx(1 / result.matmul_gflops)


def test_operations_are_counted_with_attention():
    # By the paper (table 4) 102 G multiply-adds; without attention a counter gives 71.
    clips = torch.empty(1, 3, 16, 224, 224, device="meta")
    with torch.device("meta"):
        model = hiera_base_16x224()
    assert timing.forward_operations(model, clips) / 2e9 == pytest.approx(101.9, abs=0.3)


def test_a_published_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "hiera", None)  # as if it were not installed
    with pytest.raises(UserError, match="pip install -e"):
        timing.published_model("hiera_base_16x224")


@pytest.mark.parametrize(("seconds", "size"), [(1e-4, 2048), (0.004, 1024), (0.035, 512), (9, 256)])
def test_a_slow_processor_multiplies_less(monkeypatch, seconds, size):
    monkeypatch.setattr(timing, "interleaved_seconds", lambda runs, repeats: {"small": [seconds]})
    assert cpu_size(torch.bfloat16) == size
