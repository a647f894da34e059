from pathlib import Path

import pytest
import torch

from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.weights import load_weights, start_from_weights
from hiera_video.utils.errors import UserError


def save(path, content):
    torch.save(content, path)
    return str(path)


def test_weights_of_the_same_model_are_all_loaded(tmp_path):
    theirs, ours = hiera_micro_8x64(num_classes=4), hiera_micro_8x64(num_classes=4)
    path = save(tmp_path / "w.pyth", {"model_state": theirs.state_dict(), "epoch": 3})
    summary = load_weights(ours, path, key="KEY")
    assert summary.reinitialised == ()
    assert len(summary.loaded) == len(ours.state_dict())
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])


def test_another_number_of_classes_keeps_a_fresh_head_and_says_so(tmp_path):
    theirs, ours = hiera_micro_8x64(num_classes=4), hiera_micro_8x64(num_classes=6)
    fresh = ours.head.projection.weight.clone()
    path = save(tmp_path / "w.pyth", theirs.state_dict())
    summary = start_from_weights(ours, path, key="KEY", num_classes=6)
    assert summary.reinitialised == ("head.projection.weight", "head.projection.bias")
    assert "2 re-initialised for another number of classes (head.projection.weight" in str(summary)
    assert torch.equal(ours.head.projection.weight, fresh)
    assert torch.equal(ours.norm.weight, theirs.norm.weight)


def test_a_test_does_not_accept_another_number_of_classes(tmp_path):
    path = save(tmp_path / "w.pyth", hiera_micro_8x64(num_classes=4).state_dict())
    with pytest.raises(UserError, match="checkpoint of another model") as error:
        load_weights(hiera_micro_8x64(num_classes=6), path, key="KEY")
    assert "head.projection.weight is (4, 256) there and (6, 256) here" in str(error.value)


def test_checkpoint_of_another_model_is_refused_and_nothing_is_loaded(tmp_path):
    path = save(tmp_path / "w.pyth", hiera_micro_8x64(embed_dim=16).state_dict())
    model = hiera_micro_8x64()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"^KEY: .*another model.*and \d+ more"):
        start_from_weights(model, path, key="KEY", num_classes=400)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_files_that_are_no_checkpoint_are_named(tmp_path):
    model = hiera_micro_8x64()
    (tmp_path / "empty.pyth").touch()
    (tmp_path / "text.pyth").write_text("not a checkpoint")
    good = save(tmp_path / "good.pyth", model.state_dict())
    (tmp_path / "cut.pyth").write_bytes(Path(good).read_bytes()[:5000])
    for name, words in [
        ("none.pyth", "does not exist"),
        ("", "got the folder"),
        ("empty.pyth", "not a readable checkpoint"),
        ("text.pyth", "not a readable checkpoint"),
        ("cut.pyth", "not a readable checkpoint"),
        ("list.pyth", "holds a list"),
    ]:
        if name == "list.pyth":
            save(tmp_path / name, [1, 2])
        with pytest.raises(UserError, match=words) as error:
            load_weights(model, str(tmp_path / name), key="KEY")
        assert "\n" not in str(error.value)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    path = save(tmp_path / "evil.pyth", {"model_state": Evil()})
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_weights(hiera_micro_8x64(), path, key="KEY")
    assert not (tmp_path / "owned").exists()


def test_pretrained_body_without_classifier_is_a_start_and_the_rest_is_told(tmp_path):
    theirs, ours = hiera_micro_8x64(num_classes=4), hiera_micro_8x64(num_classes=4)
    state = theirs.state_dict()
    pretrained = {n: v for n, v in state.items() if not n.startswith(("head", "norm"))}
    pretrained |= {"encoder_norm.weight": torch.ones(3), "mask_token": torch.ones(1)}
    path = save(tmp_path / "mae.pyth", {"model_state": pretrained})
    summary = start_from_weights(ours, path, key="KEY", num_classes=4)
    assert set(summary.missing) == {n for n in state if n.startswith(("head", "norm"))}
    assert summary.unused == ("encoder_norm.weight", "mask_token")
    assert "4 not in the file and freshly initialised (norm.weight" in str(summary)
    assert torch.equal(ours.blocks[3].attn.qkv.weight, theirs.blocks[3].attn.qkv.weight)
    with pytest.raises(UserError, match=r"norm.weight is missing.*and 3 more"):
        load_weights(ours, path, key="KEY")


def test_a_start_that_lacks_a_block_is_refused(tmp_path):
    state = hiera_micro_8x64().state_dict()
    path = save(tmp_path / "w.pyth", {n: v for n, v in state.items() if "blocks.2" not in n})
    with pytest.raises(UserError, match="blocks.2.norm1.weight is missing"):
        start_from_weights(hiera_micro_8x64(), path, key="KEY", num_classes=400)


def test_checkpoints_of_other_kinds_are_refused_in_one_line(tmp_path):
    (tmp_path / "a.yaml").write_text("a: b\n")
    (tmp_path / "dot").write_text(".")
    paths = [tmp_path / "a.yaml", tmp_path / "dot"]
    for name, content in [("none", {"model_state": None}), ("row", {"model_state": [1]})]:
        paths.append(tmp_path / name)
        torch.save(content, paths[-1])
    for path in paths:
        with pytest.raises(UserError, match="KEY: ") as error:
            load_weights(hiera_micro_8x64(), str(path), key="KEY")
        assert "\n" not in str(error.value)
