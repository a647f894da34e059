"""Shipped configs are found by name, from any folder; a file that exists comes first."""

import pytest

from hiera_video.config import ConfigError, load_config
from hiera_video.config.shipped import find_config, shipped_configs


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["Kinetics/HIERA_B.yaml", "configs/Kinetics/HIERA_B.yaml"])
def test_a_shipped_config_is_found_from_another_folder(name):
    assert load_config(name).MODEL.MODEL_NAME == "hiera_base_16x224"


def test_all_shipped_configs_load_by_name():
    assert len(shipped_configs()) > 10
    for name in shipped_configs():
        if not name.startswith("Sweeps/"):  # grids of configs: tests/tools/test_sweep.py
            load_config(name)


def test_a_file_that_exists_comes_first(elsewhere):
    (elsewhere / "configs" / "Kinetics").mkdir(parents=True)
    (elsewhere / "configs" / "Kinetics" / "HIERA_B.yaml").write_text("RNG_SEED: 77\n")
    assert load_config("configs/Kinetics/HIERA_B.yaml").RNG_SEED == 77


@pytest.mark.parametrize("path", ["", "nowhere.yaml", "configs/../setup.py", "../Kinetics/X.yaml"])
def test_other_paths_stay_as_they_are(path):
    assert find_config(path) == path


def test_a_misspelt_config_names_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean Kinetics/HIERA_B.yaml\?"):
        load_config("configs/Kinetics/HIERA_BB.yaml")
