"""A run that is refused before its first step leaves no new folder, and names each cause once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hiera_video.engine.launch import launch
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.utils.errors import UserError

KEY = "TRAIN.CHECKPOINT_FILE_PATH"


def refusal(cfg):
    with pytest.raises(UserError) as caught:
        launch(cfg)
    return str(caught.value)


def start_files(folder):
    """Return paths of weights that no run can start from, with words of the refusal."""
    damaged, other = folder / "damaged.pyth", folder / "other.pyth"
    damaged.write_bytes(b"noise")
    torch.save({"model_state": hiera_micro_8x64(embed_dim=16).state_dict()}, other)
    return {
        "http://127.0.0.1:1/w.pyth": "could not be fetched",
        str(damaged): "is not a readable checkpoint",
        str(other): KEY,
    }


@pytest.mark.parametrize("there_before", [False, True])
def test_weights_that_a_run_cannot_start_from_leave_no_new_folder(
    small_cfg, tmp_path, there_before
):
    output = tmp_path / "new" / "run"
    if there_before:
        output.mkdir(parents=True)
        (output / "mine.txt").write_text("kept")
    for path, words in start_files(tmp_path).items():
        said = refusal(replace(small_cfg(f"{KEY} {path}"), OUTPUT_DIR=str(output)))
        assert words in said
        assert len(said.splitlines()) == 1
        left = [file.name for file in Path(output).rglob("*")]
        assert left == (["mine.txt"] if there_before else [])
        assert output.parent.exists() == there_before


def test_weights_to_test_that_cannot_be_fetched_leave_no_new_folder(small_cfg, tmp_path):
    url = "http://127.0.0.1:1/w.pyth"
    cfg = small_cfg(f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {url}")
    said = refusal(replace(cfg, OUTPUT_DIR=str(tmp_path / "new")))
    assert said.startswith(f"TEST.CHECKPOINT_FILE_PATH: '{url}' could not be fetched")
    assert not (tmp_path / "new").exists()


def test_a_wrong_data_folder_is_one_problem(small_cfg, tmp_path):
    cfg = small_cfg()
    data = replace(cfg.DATA, PATH_TO_DATA_DIR=str(tmp_path / "nowhere"))
    said = refusal(replace(cfg, DATA=data))
    assert said.count("DATA.PATH_TO_DATA_DIR must be") == len(said.splitlines()) == 1


def test_lists_that_are_missing_beside_others_are_each_named(small_cfg, tmp_path):
    cfg = small_cfg()
    there = cfg.DATA.PATH_TO_DATA_DIR
    (tmp_path / "train.csv").write_text(Path(there, "train.csv").read_text())
    data = replace(cfg.DATA, PATH_TO_DATA_DIR=str(tmp_path), PATH_PREFIX=there)
    said = refusal(replace(cfg, DATA=data))
    assert said.count("DATA.PATH_TO_DATA_DIR must be") == 2
    assert "val.csv" in said
    assert "test.csv" in said
