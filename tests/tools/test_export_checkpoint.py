import pytest
import torch
from safetensors.torch import load_file

from hiera_video.models.hiera import hiera_micro_8x64


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint with averaged weights, and both its state dicts."""
    torch.manual_seed(0)
    plain, averaged = (hiera_micro_8x64(num_classes=3).state_dict() for _ in range(2))
    path = tmp_path / "checkpoint_epoch_00001.pyth"
    torch.save(
        {"epoch": 1, "model_state": plain, "ema_state": averaged, "optimizer_state": {}}, path
    )
    return path, plain, averaged


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("ending", ["pyth", "safetensors"])
@pytest.mark.parametrize("ema", [False, True])
def test_the_weights_become_one_plain_state_dict(run_tool, checkpoint, tmp_path, ending, ema):
    path, plain, averaged = checkpoint
    out = tmp_path / f"out.{ending}"
    outcome = run_tool("export_checkpoint", f"{path} {out}{' --ema' * ema}")
    assert outcome.status == 0, outcome.err
    assert f"{len(plain)} tensors" in outcome.out
    state = load_file(out) if ending == "safetensors" else torch.load(out, weights_only=True)
    assert same(state, averaged if ema else plain)
    hiera_micro_8x64(num_classes=3).load_state_dict(state)


def test_a_plain_state_dict_and_an_exported_one_can_be_exported_again(
    run_tool, checkpoint, tmp_path
):
    path, plain, _ = checkpoint
    for source, out in ((path, "a.safetensors"), ("a.safetensors", "b.pt"), ("b.pt", "c.pth")):
        line = f"{tmp_path / source} {tmp_path / out}"
        assert run_tool("export_checkpoint", line).status == 0
    assert same(torch.load(tmp_path / "c.pth", weights_only=True), plain)


def test_what_cannot_be_exported_is_told_in_one_line(run_tool, checkpoint, tmp_path):
    path, plain, _ = checkpoint
    torch.save({"model_state": plain}, tmp_path / "plain.pyth")
    (tmp_path / "broken.pyth").write_bytes(path.read_bytes()[:1000])
    (tmp_path / "folder.pyth").mkdir()
    for line, words in (
        (f"{path} {tmp_path}/out.onnx", "OUT must end in"),
        (f"{tmp_path}/plain.pyth {tmp_path}/out.pyth --ema", "has no averaged weights"),
        (f"{tmp_path}/none.pyth {tmp_path}/out.pyth", "does not exist"),
        (f"{tmp_path}/broken.pyth {tmp_path}/out.pyth", "not a readable checkpoint"),
        (f"{path} {tmp_path}/nowhere/out.pyth", "OUT must be a file that can be written"),
        (f"{path} {tmp_path}/folder.pyth", "(it is a folder)"),
    ):
        outcome = run_tool("export_checkpoint", line)
        assert outcome.status == 1
        assert outcome.err.startswith("error: ")
        assert words in outcome.err
        assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out.pyth").exists()
