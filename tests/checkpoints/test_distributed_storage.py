"""What an older PyTorch cannot read is told, and not called damaged."""

import pytest

from hiera_video.checkpoints import distributed, distributed_storage
from hiera_video.utils.errors import UserError


def test_several_processes_with_an_old_pytorch_are_told_the_way_out(monkeypatch):
    def load_of_2_8(state_dict, *, storage_reader=None):
        raise AssertionError("not to be called")

    monkeypatch.setattr(distributed_storage, "load", load_of_2_8)
    monkeypatch.setattr(distributed_storage.dist, "in_group", lambda: True)
    read_it = lambda: distributed.load("x.dcp", {}, alone=True)  # noqa: E731
    with pytest.raises(UserError, match=r"each for itself\. Try a newer one, or one file of it"):
        distributed._or_damaged("x.dcp", "KEY", read_it)
