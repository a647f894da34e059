import torch
import torch.nn.functional as F

from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.parts import layers


def test_more_windows_than_a_cuda_grid_holds_are_attended_to_in_parts(monkeypatch):
    counts, fused = [], F.scaled_dot_product_attention

    def counted(query, key, value):
        counts.append(len(query))
        return fused(query, key, value)

    model, clips = hiera_micro_8x64().eval().double(), torch.randn(3, 3, 8, 64, 64).double()
    whole = model(clips)
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    assert layers.MAX_WINDOWS == 2**16 - 1
    monkeypatch.setattr(layers, "MAX_WINDOWS", 20)  # of 3 x 16
    parts = model(clips)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)
    assert counts[:3] == [20, 20, 8]
    assert counts[-1] == 3  # global: a window per clip
    parts.sum().backward()
    counts.clear()
    monkeypatch.setattr(layers, "MAX_WINDOWS", 48)
    model(clips)
    assert counts[0] == 48
    assert all(p.grad is not None for p in model.parameters())
