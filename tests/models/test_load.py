import pytest
import torch

from hiera_video.checkpoints.published import load_published
from hiera_video.models.hiera import Hiera, hiera_micro_8x64
from hiera_video.models.hiera_mae import MaskedAutoencoderHiera, mae_hiera_micro_8x64
from hiera_video.models.load import load_model
from hiera_video.utils.errors import UserError


def save(path, model, **more):
    torch.save({"model_state": model.state_dict(), **more}, path)
    return str(path)


def equal(ours, theirs):
    pairs = zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_runs_own_checkpoint_gives_its_model_ready_to_use(tmp_path, capsys):
    theirs = hiera_micro_8x64(num_classes=5)
    config = "MODEL: {NUM_CLASSES: 5}\n"
    path = save(tmp_path / "checkpoint_epoch_00003.pyth", theirs, epoch=3, cfg=config)
    model = load_model("hiera_micro_8x64", checkpoint=path)
    assert isinstance(model, Hiera)
    assert not model.training
    assert equal(model, theirs)
    assert capsys.readouterr().out.splitlines() == [
        f"hiera_micro_8x64 from {path}",
        f"  loaded         {len(theirs.state_dict()):5d}",
        "  interpolated       0",
        "  re-initialised     0",
        "  missing            0",
        "  unexpected         0",
    ]


def test_settings_go_to_the_model_and_the_summary_tells_what_they_change(tmp_path, capsys):
    path = save(tmp_path / "w.pyth", hiera_micro_8x64(num_classes=5))
    model = load_model(
        "hiera_micro_8x64", checkpoint=path, num_classes=3, input_size=(16, 128, 128)
    )
    assert model(torch.randn(1, 3, 16, 128, 128)).shape == (1, 3)
    said = capsys.readouterr().out
    assert "interpolated       2  to another number of positions: pos_embed_spatial, pos_" in said
    assert "re-initialised     2  for another number of classes: head.projection.weight" in said


def test_an_autoencoders_weights_in_a_classifier(tmp_path, capsys):
    path = save(tmp_path / "w.pyth", mae_hiera_micro_8x64())
    model = load_model("hiera_micro_8x64", checkpoint=path)
    assert model.head.projection.out_features == 400  # the model function's own
    said = capsys.readouterr().out
    assert "missing            4  in the file, freshly initialised: norm.weight" in said
    assert "in the file, not used: " in said
    assert "\n  the autoencoder's decoder was dropped" in said
    assert "\n  this model pools its tokens once more than the autoencoder did (q_pool 3" in said


def test_an_autoencoder_by_name(tmp_path):
    theirs = mae_hiera_micro_8x64()
    path = save(tmp_path / "w.pyth", theirs)
    model = load_model("mae_hiera_micro_8x64", checkpoint=path, verbose=False)
    assert isinstance(model, MaskedAutoencoderHiera)
    assert equal(model, theirs)


def test_an_autoencoder_has_the_decoder_of_its_run(tmp_path):
    settings = {"decoder_depth": 3, "decoder_embed_dim": 64, "decoder_num_heads": 2}
    theirs = mae_hiera_micro_8x64(**settings)
    config = "MASK: {DECODER_NUM_HEADS: 2}\n"
    path = save(tmp_path / "w.pyth", theirs, cfg=config)
    model = load_model("mae_hiera_micro_8x64", checkpoint=path, verbose=False)
    assert equal(model, theirs)
    clips, visible = torch.randn(1, 3, 8, 64, 64), (torch.arange(16) < 4)[None]
    theirs.eval()
    assert torch.equal(model(clips, visible).pred, theirs(clips, visible).pred)


def test_heads_of_a_decoder_other_than_its_runs_are_refused(tmp_path):
    config = "MASK: {DECODER_NUM_HEADS: 2}\n"
    path = save(tmp_path / "w.pyth", mae_hiera_micro_8x64(decoder_num_heads=2), cfg=config)
    for load in (
        lambda: load_model("mae_hiera_micro_8x64", checkpoint=path, decoder_num_heads=4),
        lambda: load_published(mae_hiera_micro_8x64(), "mae_hiera_micro_8x64", path),
    ):
        with pytest.raises(UserError, match="decoder_num_heads must be 2, as in the run that") as e:
            load()
        assert "got 4. Try decoder_num_heads=2." in str(e.value)
    load_model("hiera_micro_8x64", checkpoint=path, verbose=False)  # a classifier has no decoder


@pytest.mark.parametrize("config", ["", "MASK: 3\n", "MASK: {DECODER_NUM_HEADS: x}", "- [", 5])
def test_a_decoders_heads_are_the_functions_where_no_config_says(tmp_path, config):
    theirs = mae_hiera_micro_8x64(decoder_depth=1)
    path = save(tmp_path / "w.pyth", theirs, cfg=config)
    model = load_model("mae_hiera_micro_8x64", checkpoint=path, verbose=False)
    assert len(model.decoder_blocks) == 1
    assert model.decoder_blocks[0].attn.num_heads == 4


def test_an_autoencoder_from_a_classifiers_body(tmp_path):
    path = save(tmp_path / "w.pyth", hiera_micro_8x64(num_classes=5))
    model = load_model("mae_hiera_micro_8x64", checkpoint=path, verbose=False)
    assert isinstance(model, MaskedAutoencoderHiera)


def test_quiet_says_nothing(tmp_path, capsys):
    path = save(tmp_path / "w.pyth", hiera_micro_8x64())
    load_model("hiera_micro_8x64", checkpoint=path, verbose=False)
    assert capsys.readouterr().out == ""


def test_a_published_name_is_found_in_the_folder_of_copies(tmp_path, monkeypatch, capsys):
    # A small model's file under the published name: what fits is not the name's business.
    small = {"embed_dim": 8, "stages": (1, 1, 1, 1), "input_size": (4, 64, 64)}
    theirs = hiera_micro_8x64(**small, num_classes=11)
    path = save(tmp_path / "hiera_base_16x224.pth", theirs)
    monkeypatch.setenv("HIERA_VIDEO_WEIGHTS", str(tmp_path))
    assert equal(load_model("hiera_base_16x224", **small), theirs)
    assert f"hiera_base_16x224 from {path}\n" in capsys.readouterr().out


def test_unknown_models_and_checkpoints_are_named():
    with pytest.raises(UserError, match=r"'heira_base_16x224'\. Did you mean hiera_base_16x224\?"):
        load_model("heira_base_16x224")
    with pytest.raises(UserError, match="name must be a model .*mae_hiera_base_16x224"):
        load_model("plan_blocks")
    with pytest.raises(UserError, match=r"got 'mae_k400_ftk400'\. Did you mean mae_k400_ft"):
        load_model("hiera_base_16x224", checkpoint="mae_k400_ftk400")
    with pytest.raises(UserError, match="no weights of hiera_micro_8x64 are published"):
        load_model("hiera_micro_8x64")
    with pytest.raises(UserError, match="does not exist"):
        load_model("hiera_micro_8x64", checkpoint="none.pyth")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = save(tmp_path / "w.pyth", hiera_micro_8x64(embed_dim=16))
    with pytest.raises(UserError, match="checkpoint of another model"):
        load_model("hiera_micro_8x64", checkpoint=path)
