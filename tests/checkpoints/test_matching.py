from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hiera_video.checkpoints.files import model_state, read_checkpoint
from hiera_video.checkpoints.matching import (
    load_state,
    load_weights,
    refuse_misfits,
    start_from_weights,
)
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64
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


def test_of_a_folder_of_a_run_the_best_checkpoint_is_named_or_the_last(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in (
        "checkpoint_epoch_00010.pyth",
        "checkpoint_epoch_00009.pyth",
        "checkpoint_best.pyth",
    ):
        (folder / name).touch()
    for best in (folder / "checkpoint_best.pyth", folder / "checkpoint_epoch_00010.pyth"):
        for where in (tmp_path, folder):
            with pytest.raises(UserError) as error:
                load_weights(hiera_micro_8x64(), str(where), key="KEY")
            assert str(error.value).endswith(f"got the folder '{where}'. Try {best}.")
        best.unlink()


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
    with pytest.raises(UserError, match=r"norm.weight is missing.*and 2 more"):
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


def test_safetensors_are_read_like_any_checkpoint(tmp_path):
    theirs, ours = hiera_micro_8x64(num_classes=4), hiera_micro_8x64(num_classes=4)
    path = str(tmp_path / "w.safetensors")
    save_file(theirs.state_dict(), path)
    assert set(read_checkpoint(path, key="KEY")) == {"model_state"}
    summary = load_weights(ours, path, key="KEY")
    assert len(summary.loaded) == len(theirs.state_dict())
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])


def test_broken_safetensors_are_refused_in_one_line(tmp_path):
    good = tmp_path / "good.safetensors"
    save_file(hiera_micro_8x64().state_dict(), good)
    whole = good.read_bytes()
    pickled = tmp_path / "pickle"
    torch.save({"model_state": {}}, pickled)
    contents = {
        "empty": b"",
        "cut": whole[:5000],
        "short": whole[:-10],
        "text": b"not a checkpoint",
    }
    for name, content in {**contents, "pickled": pickled.read_bytes()}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(UserError, match="^KEY: .*not a readable checkpoint") as error:
            load_weights(hiera_micro_8x64(), str(path), key="KEY")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="does not exist"):
        load_weights(hiera_micro_8x64(), str(tmp_path / "none.safetensors"), key="KEY")


def larger(**settings):
    """Twice the resolution and frames of the micro model."""
    return hiera_micro_8x64(input_size=(16, 128, 128), **settings)


POSITIONS = ("pos_embed_spatial", "pos_embed_temporal")


def test_another_resolution_is_interpolated_to_test_and_to_start_and_said(tmp_path):
    theirs = hiera_micro_8x64(num_classes=4)
    path = save(tmp_path / "w.pyth", theirs.state_dict())
    tested, started = larger(num_classes=4).eval(), larger(num_classes=4).eval()
    summaries = [
        load_weights(tested, path, key="KEY"),
        start_from_weights(started, path, key="KEY", num_classes=4),
    ]
    for summary in summaries:
        assert summary.interpolated == POSITIONS
        assert set(summary.loaded) == set(theirs.state_dict())
        words = "2 interpolated to another number of positions (pos_embed_spatial, pos_embed_"
        assert words in str(summary)
    clips = torch.randn(1, 3, 16, 128, 128)
    assert torch.equal(tested(clips), started(clips))
    assert tested(clips).isfinite().all()


def test_equal_sizes_are_loaded_bit_for_bit_and_nothing_is_said(tmp_path):
    theirs, ours = hiera_micro_8x64(), hiera_micro_8x64()
    path = save(tmp_path / "w.pyth", theirs.state_dict())
    summary = load_weights(ours, path, key="KEY")
    assert summary.interpolated == ()
    assert "interpolated" not in str(summary)
    for name in POSITIONS:
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_preflight_accepts_another_resolution_and_resuming_does_not(tmp_path):
    state = hiera_micro_8x64().state_dict()
    with torch.device("meta"):
        shapes = larger()
    refuse_misfits(shapes, state, path="w.pyth", key="KEY")
    with pytest.raises(UserError, match="pos_embed_spatial is .* there and .* here"):
        load_state(larger(), state, path="w.pyth", key="KEY")
    other = hiera_micro_8x64(embed_dim=16).state_dict()
    with pytest.raises(UserError, match="another model"):
        refuse_misfits(shapes, other, path="w.pyth", key="KEY")


def test_positions_of_no_such_grid_are_the_ordinary_misfit(tmp_path):
    state = hiera_micro_8x64(input_size=(8, 64, 128)).state_dict()
    path = save(tmp_path / "w.pyth", state)
    for load in (load_weights, partial(start_from_weights, num_classes=400)):
        with pytest.raises(UserError, match=r"pos_embed_spatial is \(1, 512, 32\) there"):
            load(hiera_micro_8x64(), path, key="KEY")


def test_a_classifier_starts_from_an_autoencoder_and_the_rest_is_told(tmp_path):
    theirs, ours = mae_hiera_micro_8x64(), larger(num_classes=4)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    state = theirs.state_dict()
    path = save(tmp_path / "mae.pyth", {"model_state": state})
    summary = start_from_weights(ours, path, key="KEY", num_classes=4)
    assert set(summary.missing) == {n for n in before if n.startswith(("head", "norm"))}
    assert set(summary.unused) == {n for n in state if n not in before}
    assert summary.interpolated == POSITIONS
    assert "the autoencoder's decoder was dropped" in str(summary)
    pooling = "once more than the autoencoder did (q_pool 3, not q_pool 2); pooling has no weights"
    assert pooling in str(summary)
    for name, value in ours.state_dict().items():
        if name not in POSITIONS:
            assert torch.equal(value, before[name] if name in summary.missing else state[name])


def test_an_autoencoder_starts_from_an_autoencoder_of_another_resolution(tmp_path):
    theirs, ours = mae_hiera_micro_8x64(), mae_hiera_micro_8x64(input_size=(16, 128, 128))
    path = save(tmp_path / "mae.pyth", theirs.state_dict())
    summary = start_from_weights(ours, path, key="KEY", num_classes=None)
    assert set(summary.loaded) == set(theirs.state_dict())
    assert summary.interpolated == (*POSITIONS, "decoder_pos_embed")
    assert summary.missing == summary.unused == summary.notes == ()
    assert torch.equal(ours.decoder_pred.weight, theirs.decoder_pred.weight)
    assert ours(torch.randn(1, 3, 16, 128, 128), mask_ratio=0.5).loss.isfinite()


HEADS_HERE = "the decoder has 4 attention heads here and had"


@pytest.mark.parametrize(
    ("heads", "name", "warning"),
    [
        (2, "w.pyth", f"{HEADS_HERE} 2 there."),
        (4, "w.pyth", ""),
        (None, "w.pyth", "the file does not say how many attention heads its decoder had"),
        (None, "mae_hiera_base_16x224.pth", f"{HEADS_HERE} 16 there."),  # the authors' code has 16
    ],
)
def test_a_decoder_of_other_or_unknown_heads_is_warned_of(tmp_path, heads, name, warning):
    path = tmp_path / name
    config = {"cfg": f"MASK: {{DECODER_NUM_HEADS: {heads}}}"} if heads else {}
    state = mae_hiera_micro_8x64(decoder_num_heads=heads or 4).state_dict()
    torch.save({"model_state": state, **config}, path)
    for load in (load_weights, partial(start_from_weights, num_classes=None)):
        summary = load(mae_hiera_micro_8x64(), str(path), key="KEY")
        assert len(summary.warnings) == bool(warning)
        assert "".join(summary.warnings).startswith(warning)
    classifier = start_from_weights(hiera_micro_8x64(), str(path), key="KEY", num_classes=400)
    assert classifier.warnings == ()


def test_an_autoencoder_without_its_decoder_starts_with_a_fresh_one(tmp_path):
    theirs, ours = hiera_micro_8x64(), mae_hiera_micro_8x64()
    path = save(tmp_path / "w.pyth", theirs.state_dict())
    summary = start_from_weights(ours, path, key="KEY", num_classes=None)
    assert "mask_token" in summary.missing
    assert set(summary.unused) == {n for n in theirs.state_dict() if n.startswith(("norm", "head"))}
    assert summary.notes == ()
    assert torch.equal(ours.blocks[3].attn.qkv.weight, theirs.blocks[3].attn.qkv.weight)


def test_a_model_without_layers_and_grid_is_loaded_as_it_is(tmp_path):
    theirs, ours = torch.nn.Linear(3, 4), torch.nn.Linear(3, 5)
    path = save(tmp_path / "w.pyth", theirs.state_dict())
    summary = start_from_weights(ours, path, key="KEY", num_classes=5)
    assert summary.reinitialised == ("weight", "bias")
    assert model_state(read_checkpoint(path, key="KEY")).keys() == theirs.state_dict().keys()


def test_a_name_that_is_nearly_there_is_asked_for(tmp_path):
    (tmp_path / "checkpoint_best.pyth").touch()
    with pytest.raises(UserError, match=r"does not exist\. Did you mean checkpoint_best\.pyth\?"):
        read_checkpoint(str(tmp_path / "checkpoint_bset.pyth"), key="KEY")
    with pytest.raises(UserError, match=r"does not exist\.$"):
        read_checkpoint(str(tmp_path / "none" / "x.pyth"), key="KEY")


def spoilt(name, value):
    """Return the micro model's weights with one tensor made from itself by `value`."""
    state = hiera_micro_8x64(num_classes=4).state_dict()
    return state | {name: value(state[name])}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda t: t.to(torch.int8), "norm.weight is int8 there and float32 here"),
        (lambda t: t.bool(), "norm.weight is bool there and float32 here"),
        (lambda t: t.to(torch.complex64), "norm.weight is complex64 there and float32 here"),
        (lambda t: t.index_fill(0, torch.tensor(1), torch.nan), "norm.weight holds NaN"),
        (lambda t: t.index_fill(0, torch.tensor(1), torch.inf), "norm.weight holds infinite"),
        (lambda t: t.double() * 1e300, "norm.weight holds infinite numbers"),  # in float32
    ],
)
def test_numbers_of_another_kind_and_not_finite_ones_are_refused(tmp_path, value, message):
    path = save(tmp_path / "w.pyth", spoilt("norm.weight", value))
    for load in (load_weights, partial(start_from_weights, num_classes=4)):
        model = hiera_micro_8x64(num_classes=4)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(UserError, match=f"KEY: .*must hold finite numbers.*{message}") as error:
            load(model, path, key="KEY")
        assert "\n" not in str(error.value)
        assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_numbers_of_another_width_are_loaded(tmp_path, dtype):
    state = {n: v.to(dtype) for n, v in hiera_micro_8x64(num_classes=4).state_dict().items()}
    path = save(tmp_path / "w.pyth", state)
    model = hiera_micro_8x64(num_classes=4)
    load_weights(model, path, key="KEY")
    assert torch.equal(model.norm.weight, state["norm.weight"].float())


def test_what_is_not_used_may_be_broken(tmp_path):
    state = mae_hiera_micro_8x64().state_dict()
    state["mask_token"] = state["mask_token"] * torch.nan
    path = save(tmp_path / "w.pyth", state)
    summary = start_from_weights(hiera_micro_8x64(), path, key="KEY", num_classes=400)
    assert "mask_token" in summary.unused
    with pytest.raises(UserError, match="mask_token holds NaN"):
        start_from_weights(mae_hiera_micro_8x64(), path, key="KEY", num_classes=None)


def test_the_first_keys_that_differ_are_named(tmp_path):
    state = hiera_micro_8x64().state_dict()
    state["fc_norm.weight"] = state.pop("norm.weight")
    state["one\nline\x1b[31m"] = state.pop("blocks.0.norm1.bias")
    path = save(tmp_path / "w.pyth", state)
    for load in (load_weights, partial(start_from_weights, num_classes=400)):
        with pytest.raises(UserError, match="blocks.0.norm1.bias is missing; ") as error:
            load(hiera_micro_8x64(), path, key="KEY")
        assert r"fc_norm.weight is unknown here; one\nline\x1b[31m is unknown" in str(error.value)
        assert str(error.value).isprintable()
