import json
import sys

import pytest
import torch
from safetensors.torch import load_file

import hiera_video
from hiera_video.checkpoints import hub
from hiera_video.checkpoints.hub import all_settings, hub_class, read_facts
from hiera_video.models.hiera import Hiera, hiera_micro_8x64
from hiera_video.models.hiera_mae import MaskedAutoencoderHiera, mae_hiera_micro_8x64
from hiera_video.models.load import from_pretrained
from hiera_video.models.mvit import mvit_micro_8x64
from hiera_video.models.mvit_mae import mae_mvit_micro_8x64
from hiera_video.models.vit import vit_micro_8x64
from hiera_video.models.vit_mae import mae_vit_micro_8x64
from hiera_video.utils.errors import UserError

CLIPS = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    return hiera_micro_8x64(num_classes=5, drop_path_rate=0.1, head_dropout=0.2).eval()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model", facts={"class_names": ["a", "é"]})
    return tmp_path / "model"


def test_a_classifier_comes_back_with_its_outputs(model, folder):
    for again in (from_pretrained(folder), Hiera.from_pretrained(str(folder))):
        assert type(again) is Hiera
        assert not again.training
        assert torch.equal(again(CLIPS), model(CLIPS))
        assert again.head.dropout.p == 0.2
        assert all_settings(again) == json.loads(json.dumps(all_settings(model)))
    assert read_facts(folder) == {"class_names": ["a", "é"]}


def test_an_autoencoder_comes_back_with_its_outputs(tmp_path):
    theirs = mae_hiera_micro_8x64(decoder_num_heads=2, decoder_depth=1).eval()
    theirs.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert read_facts(tmp_path) == {}
    model = from_pretrained(tmp_path)
    assert type(model) is MaskedAutoencoderHiera
    visible = (torch.arange(16) < 4)[None].expand(2, -1)
    assert torch.equal(model(CLIPS, visible).pred, theirs(CLIPS, visible).pred)
    with pytest.raises(UserError, match=r"must hold a Hiera, got a MaskedAutoencoderHiera\. Try"):
        Hiera.from_pretrained(tmp_path)


def test_an_image_model_and_a_joint_position_embedding_come_back(tmp_path):
    small = {"embed_dim": 8, "stages": (1, 1, 1, 1), "input_size": (64, 64), "mlp_ratio": 2.0}
    theirs = Hiera(num_classes=3, **small).eval()
    theirs.save_pretrained(tmp_path)
    images = CLIPS[:, :, 0]
    assert torch.equal(from_pretrained(tmp_path)(images), theirs(images))


def test_settings_hold_the_defaults_of_their_day(model, folder):
    written = json.loads((folder / "config.json").read_text())
    assert written["dim_mul"] == 2.0  # said by no caller
    assert written["stages"] == [1, 1, 2, 1]
    assert written["num_classes"] == 5
    autoencoder = all_settings(mae_hiera_micro_8x64())
    assert autoencoder["q_pool"] == 2
    assert "num_classes" not in autoencoder


def test_changes_interpolate_positions_and_renew_the_classifier(folder):
    model = from_pretrained(folder, input_size=(16, 64, 64), num_classes=3)
    assert model(torch.randn(1, 3, 16, 64, 64)).shape == (1, 3)
    old = load_file(folder / "model.safetensors")
    assert torch.equal(
        model.state_dict()["blocks.0.mlp.fc1.weight"], old["blocks.0.mlp.fc1.weight"]
    )


def test_weights_in_memory_do_not_hang_on_the_file(model, folder, tmp_path):
    again = from_pretrained(folder)
    other = hiera_micro_8x64(num_classes=5).eval()
    other.save_pretrained(folder)  # replaced while it is loaded
    assert torch.equal(again(CLIPS), model(CLIPS))
    assert torch.equal(from_pretrained(folder)(CLIPS), other(CLIPS))


def test_huggingface_hub_reads_our_folder_and_we_read_its(model, folder, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    on_hub = hub_class(Hiera)
    theirs = on_hub.from_pretrained(str(folder))
    assert isinstance(theirs, Hiera)
    assert torch.equal(theirs(CLIPS), model(CLIPS))
    theirs.save_pretrained(tmp_path / "written by it")
    assert (tmp_path / "written by it/README.md").is_file()
    assert hasattr(theirs, "push_to_hub")
    for read in (from_pretrained, Hiera.from_pretrained):
        again = read(tmp_path / "written by it")
        assert type(again) is Hiera
        assert torch.equal(again(CLIPS), model(CLIPS))
    built = on_hub(num_classes=5, embed_dim=8, stages=(1, 1, 1, 1))
    built.save_pretrained(tmp_path / "built")
    again = from_pretrained(tmp_path / "built")
    images = torch.randn(1, 3, 224, 224)
    assert torch.equal(again(images), built.eval()(images))


def test_without_huggingface_hub_a_folder_still_loads(model, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # what Python does with: no such
    assert torch.equal(from_pretrained(folder)(CLIPS), model(CLIPS))
    with pytest.raises(UserError, match=r"'someone/hiera' .*Try pip install -e '\.\[hub\]'"):
        from_pretrained("someone/hiera")
    with pytest.raises(UserError, match="huggingface_hub is not installed"):
        hub_class(Hiera)


def test_a_repository_that_cannot_be_had_is_one_line(monkeypatch, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    real = huggingface_hub.snapshot_download

    def offline(*args, **kwargs):
        return real(*args, **kwargs, local_files_only=True, cache_dir=tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="'someone/hiera' is no folder here, and could not be had"):
        from_pretrained("someone/hiera")


@pytest.mark.parametrize("where", ["no/such/folder", "nothing", "./here", "/none/here", "", "~/x"])
def test_what_is_neither_folder_nor_repository_is_refused(where):
    with pytest.raises(UserError, match="must be given a folder or a repository's owner/name"):
        from_pretrained(where)


def spoil_json(folder):
    (folder / "config.json").write_text('{"num_classes": 5,')


def list_for_object(folder):
    (folder / "config.json").write_text("[1]")


def unknown_setting(folder):
    change(folder, embed_dims=32)


def wrong_kind(folder):
    change(folder, stages="many")


def not_dividing(folder):
    change(folder, input_size=[8, 60, 64])


def of_another_model(folder):
    change(folder, embed_dim=16)


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def binary(folder):
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")


def nested(folder):
    (folder / "config.json").write_text("[" * 100_000)


def change(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_json, "is not readable JSON"),
        (binary, "is not readable JSON"),
        (nested, "is not readable JSON"),
        (list_for_object, "must hold an object, got a list"),
        (unknown_setting, "must be those of Hiera, got some that do not build one .*'embed_dims'"),
        (wrong_kind, "stages must be a list of whole numbers, got .many"),
        (not_dividing, "input_size must be divisible by"),
        (of_another_model, "is a checkpoint of another model"),
        (cut_short, "is not a readable checkpoint"),
        (no_weights, r"has no model\.safetensors"),
    ],
)
def test_a_broken_folder_is_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(UserError, match=message) as error:
        from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_one_line(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="save_pretrained: .* must be a folder that can be written"):
        model.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_module_needs_no_huggingface_hub():
    assert "huggingface_hub" not in vars(hub)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("model_name", [3, None]),
        ("class_names", ["abc", [1, 2], {"0": "a"}]),
        ("clips", [[1], "16x4", None]),
        ("outputs", ["probabilities", ["logits"]]),
        ("checkpoint", [3]),
        ("licence", [3, False]),
        ("hiera_video", [1.0]),
        ("torch", [2]),
        ("clips.shape", [[3, 8, 64, 64, 1], [3.0, 8, 64, 64], "3", [3, 8, True, 64], [0, 1, 1, 1]]),
        ("clips.sampling", [1, ["dense"]]),
        ("clips.sampling_rate", ["4", 4.5, True, 0, None]),
        ("clips.target_fps", ["30", True, 0, -1]),
        ("clips.mean", [0.45, [0.45], ["0.45"] * 3, [True] * 3, [None] * 3]),
        ("clips.std", [[0.2, 0.2], {"0": 1}]),
        ("clips.num_clips", ["5", 0, -1, 5.0]),
        ("clips.num_crops", [[3], False]),
    ],
)
def test_a_field_of_another_kind_is_named_in_one_line(model, folder, field, values):
    section, _, name = field.rpartition(".")
    for value in values:
        facts = {section: {name: value}} if section else {name: value}
        (folder / "hiera_video.json").write_text(json.dumps(facts))
        with pytest.raises(UserError, match=f"hiera_video.json': {field} must be ") as error:
            read_facts(folder)
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match=f"facts: {field} must be "):
            model.save_pretrained(folder, facts=facts)


def test_fields_of_a_later_version_are_left_alone(folder):
    facts = {"later": [1], "clips": {"later": 2}, "licence": None}
    (folder / "hiera_video.json").write_text(json.dumps(facts))
    assert read_facts(folder) == facts


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_classes", True),
        ("num_classes", 5.0),
        ("sep_pos_embed", "false"),
        ("head_dropout", "0.1"),
        ("stages", [1, 1, 10**9, 1]),
        ("stages", [1, 1, 2.0, 1]),
        ("mask_unit_attn", [1, 1, 0, 0]),
        ("weight_init", 3),
    ],
)
def test_a_setting_of_another_kind_is_named_in_one_line(folder, setting, value):
    change(folder, **{setting: value})
    with pytest.raises(UserError, match=f"config.json': {setting} must ") as error:
        from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_a_config_that_asks_for_more_memory_than_its_weights_takes_none(folder):
    change(folder, embed_dim=1 << 20)  # terabytes
    with pytest.raises(UserError, match="is a checkpoint of another model"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (vit_micro_8x64, {"num_classes": 3}),
        (mae_vit_micro_8x64, {"class_token": True}),
        (mvit_micro_8x64, {"simplify": "ab", "class_token": True, "num_classes": 3}),
        (mae_mvit_micro_8x64, {"simplify": "abc", "mask_design": "separate"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_other_families_are_saved_and_loaded_as_their_class(tmp_path, make, settings):
    model = make(**settings).eval()
    model.save_pretrained(tmp_path)
    again = hiera_video.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert type(model).from_pretrained(tmp_path).settings.keys() >= model.settings.keys()
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    with pytest.raises(UserError, match=f"must hold a Hiera, got a {type(model).__name__}"):
        hiera_video.Hiera.from_pretrained(tmp_path)
