"""A pass must not make the host wait for a GPU; the meta device stands in for one."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hiera_video.models import masking
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
from hiera_video.models.parts.visible import draw_decoded


class Copies(TorchDispatchMode):
    """Write down, of each copy to the device, whether it is waited for."""

    def __init__(self):
        super().__init__()
        self.waited_for = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") is not None:
            self.waited_for.append(not kwargs.get("non_blocking"))
        return func(*args, **kwargs)


def test_a_step_of_the_autoencoder_does_not_wait_for_the_device(monkeypatch):
    model = mae_hiera_micro_8x64().to("meta")
    visible = masking.tube(model.unit_grid, num_clips=2, ratio=0.5)
    decoded = draw_decoded(visible, keep_ratio=0.5)
    clips = torch.empty(2, 3, 8, 64, 64, device="meta")
    made, tensor = [], torch.tensor

    def noted(*args, device=None, **kwargs):  # Python's numbers go to a device by a copy of its own
        made.append(device)
        return tensor(*args, device=device, **kwargs)

    monkeypatch.setattr(torch, "tensor", noted)
    with Copies() as copies:
        # What needs the numbers of a meta tensor raises, and would wait for a GPU.
        output = model(clips, visible, decoded=decoded)
    assert output.visible.device.type == "meta"
    assert len(copies.waited_for) >= 4
    assert not any(copies.waited_for)
    assert made == []
