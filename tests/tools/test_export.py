import json
import re

import pytest
import simplejson
import torch
import yaml

from hiera_video.checkpoints.hub import read_facts
from hiera_video.config import load_config, to_yaml
from hiera_video.models.build import build_model
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.load import from_pretrained

TINY = (
    "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 MODEL.NUM_CLASSES 3 "
    "DATA.PATH_TO_DATA_DIR /somewhere/of/mine/clips_of_mine OUTPUT_DIR /somewhere/of/mine/out"
)
NAMES = ["left | right", "é <b>", "c"]


@pytest.fixture
def run_folder(tmp_path):
    """Make what a run leaves: a checkpoint and, if `results` are given, those of its test."""

    def make(cfg="configs/Demo/HIERA_MICRO.yaml", overrides=TINY, results=None, names=NAMES):
        config = load_config(cfg, overrides.split())
        torch.manual_seed(0)
        path = tmp_path / "run/checkpoints/checkpoint_epoch_00004.pyth"
        path.parent.mkdir(parents=True, exist_ok=True)
        model = build_model(config).eval()
        content = {"epoch": 4, "model_state": model.state_dict(), "cfg": to_yaml(config)}
        torch.save(content | {"class_names": names}, path)
        if results:
            (tmp_path / "run/test_results.json").write_text(simplejson.dumps(results))
        return path, model

    return make


RESULTS = {
    "top1_acc": 81.25,
    "top5_acc": 99.5,
    "mean_class_acc": 80.1,
    "views": "5x1",
    "num_videos": 320,
    "num_evaluated": 319,
    "checkpoint": "/elsewhere/checkpoints/checkpoint_epoch_00004.pyth",
}


def test_a_run_becomes_a_folder_with_a_card_of_its_own_facts(run_tool, run_folder, tmp_path):
    path, theirs = run_folder(results=RESULTS)
    outcome = run_tool("export", f"--checkpoint {path} --output {tmp_path}/model")
    assert (outcome.status, outcome.err) == (0, "")
    assert f"safetensors: {tmp_path}/model (" in outcome.out
    model = from_pretrained(tmp_path / "model")
    clips = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(model(clips), theirs(clips))
    facts = read_facts(tmp_path / "model")
    assert facts["class_names"] == NAMES
    assert facts["clips"]["shape"] == [3, 4, 32, 32]
    assert facts["clips"]["mean"] == [0.45, 0.45, 0.45]
    assert facts["licence"] is None
    card = (tmp_path / "model/README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["pipeline_tag"] == "video-classification"
    assert "license" not in header
    assert "| top-1, % | 81.25 |" in card
    assert "| videos evaluated | 319 of 320 |" in card
    num_parameters = sum(parameter.numel() for parameter in theirs.parameters())
    assert f"| parameters | {num_parameters / 1e6:.2f} M |" in card
    assert re.search(r"\| GFLOPs \(multiply-adds\) of a view \| 0\.0\d \|", card)
    assert "3 classes: left &#124; right, é &#60;b&#62;, c." in card
    assert "Data set: clips_of_mine. Configured: " in card
    assert "MODEL.NUM_CLASSES: 3" in card
    assert "from scratch" in card
    assert "not from the authors' weights" in card
    assert "/somewhere" not in card  # the machine's own business
    assert str(tmp_path) not in card


def test_without_a_result_the_card_says_so(run_tool, run_folder, tmp_path):
    other = {**RESULTS, "checkpoint": "checkpoint_epoch_00009.pyth"}
    path, _ = run_folder(results=other)  # of another checkpoint: not this one's accuracy
    words = f"--checkpoint {path} --output {tmp_path}/model"
    assert run_tool("export", words).status == 0
    assert "No test result came with the weights." in (tmp_path / "model/README.md").read_text()
    outcome = run_tool("export", f"{words} --results {tmp_path}/run/test_results.json")
    assert outcome.status == 1
    assert "--results must be of the checkpoint that is exported" in outcome.err
    outcome = run_tool("export", f"{words} --results {path}")
    assert "--results must be a test_results.json that a test has written" in outcome.err


def test_another_models_result_beside_a_folder_is_not_on_its_card(run_tool, run_folder, tmp_path):
    path, _ = run_folder(results={**RESULTS, "checkpoint": "checkpoint_epoch_00009.pyth"})
    first = tmp_path / "run/exported/first"
    assert run_tool("export", f"--checkpoint {path} --output {first}").status == 0
    outcome = run_tool("export", f"--checkpoint {first} --output {tmp_path}/second")
    assert outcome.status == 0, outcome.err
    card = (tmp_path / "second/README.md").read_text()
    assert "No test result came with the weights." in card


def test_a_readme_of_somebody_elses_is_not_overwritten(run_tool, run_folder, tmp_path):
    path, _ = run_folder()
    (tmp_path / "README.md").write_text("# My project\n")
    outcome = run_tool("export", f"--checkpoint {path} --output {tmp_path}")
    assert outcome.status == 1
    assert "whose README.md is not one that this tool wrote. Try a new folder." in outcome.err
    assert (tmp_path / "README.md").read_text() == "# My project\n"
    assert not (tmp_path / "config.json").exists()
    words = f"--checkpoint {path} --output {tmp_path}/model"
    assert [run_tool("export", words).status for _ in range(2)] == [0, 0]  # its own it replaces


def test_what_was_trained_from_the_authors_weights_carries_their_licence(
    run_tool, run_folder, tmp_path
):
    url = "https://dl.fbaipublicfiles.com/hiera/mae_hiera_base_16x224.pth"
    path, _ = run_folder(overrides=f"{TINY} TRAIN.CHECKPOINT_FILE_PATH {url}")
    assert run_tool("export", f"--checkpoint {path} --output {tmp_path}/model").status == 0
    card = (tmp_path / "model/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-nc-4.0"
    assert "were trained from the published ones" in card
    assert "from `mae_hiera_base_16x224.pth`" in card
    assert read_facts(tmp_path / "model")["licence"] == "CC-BY-NC-4.0"


def test_an_autoencoder_becomes_a_folder_but_no_graph(run_tool, run_folder, tmp_path):
    path, theirs = run_folder("configs/Demo/HIERA_MICRO_MAE_PT.yaml", names=None)
    words = f"--checkpoint {path} --output {tmp_path}/model --format"
    outcome = run_tool("export", f"{words} pt2 safetensors")
    assert outcome.status == 1
    assert "--format must be safetensors for an autoencoder" in outcome.err
    assert not (tmp_path / "model").exists()
    outcome = run_tool("export", f"{words} safetensors")
    assert (outcome.status, outcome.err) == (0, "")
    model = from_pretrained(tmp_path / "model")
    assert type(model).__name__ == "MaskedAutoencoderHiera"
    for name, value in theirs.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    card = (tmp_path / "model/README.md").read_text()
    assert "is a masked autoencoder of videos" in card
    assert "Accuracy" not in card


def test_a_graph_is_compared_and_stands_on_the_card(run_tool, run_folder, tmp_path):
    path, theirs = run_folder()
    words = f"--checkpoint {path} --output {tmp_path}/model --format pt2 safetensors"
    outcome = run_tool("export", words)
    assert (outcome.status, outcome.err) == (0, "")
    assert "pt2: " in outcome.out
    assert "largest difference from the eager model" in outcome.out
    facts = {"hiera_video.json": ""}
    program = torch.export.load(tmp_path / "model/model.pt2", extra_files=facts)
    clips = torch.randn(3, 3, 4, 32, 32)
    torch.testing.assert_close(program.module()(clips), theirs(clips), atol=1e-4, rtol=0)
    assert json.loads(facts["hiera_video.json"]) == read_facts(tmp_path / "model")
    assert "`model.pt2`: clips to logits, within " in (tmp_path / "model/README.md").read_text()
    assert run_tool("export", f"{words} --tolerance nan").status == 1  # nothing is within it
    again = run_tool("export", f"--checkpoint {path} --output {tmp_path}/model")
    assert "warning: model.pt2 in " in again.out
    assert "add pt2 to --format" in again.out


def test_plain_weights_go_by_the_name_of_their_model(run_tool, tmp_path):
    theirs = hiera_micro_8x64(num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    words = f"--checkpoint {tmp_path}/w.pth --output {tmp_path}/model"
    assert "does not say of which model it is" in run_tool("export", words).err
    assert run_tool("export", f"{words} --model hiera_micro_8x64").status == 0
    clips = torch.randn(1, 3, 8, 64, 64)
    assert torch.equal(from_pretrained(tmp_path / "model")(clips), theirs(clips))
    assert read_facts(tmp_path / "model")["clips"] == {"shape": [3, 8, 64, 64]}  # all that is known
    card = (tmp_path / "model/README.md").read_text()
    assert "It is not known what the weights were trained from (`w.pth`)" in card
    assert "## Training" not in card


@pytest.mark.slow
def test_the_convolutional_baseline_has_graphs_and_no_folder(run_tool, run_folder, tmp_path):
    cfg = f"{TINY} MODEL.ARCH baselines MODEL.MODEL_NAME x3d_s MODEL.DROP_PATH_RATE 0.0"
    path, _ = run_folder(overrides=cfg)
    words = f"--checkpoint {path} --output {tmp_path}/model --format"
    outcome = run_tool("export", f"{words} safetensors")
    assert "--format safetensors must have a Hiera, got x3d_s" in outcome.err
    assert run_tool("export", f"{words} pt2").status == 0


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("--output x", 1, "--checkpoint or --model must be given"),
        ("--checkpoint none.pyth --output x", 1, "does not exist"),
        ("--checkpoint mae_k400 --output x", 1, "must go with the model that it is of"),
        ("--checkpoint x --output x --format tflite", 2, "invalid choice"),
        ("--checkpoint x", 2, "--output"),
    ],
)
def test_what_the_user_can_put_right(run_tool, words, status, message):
    outcome = run_tool("export", words)
    assert outcome.status == status
    assert message in outcome.err
