"""A model can be imported without the rest of the package."""

import json
import subprocess
import sys

import pytest

import hiera_video

# Nothing that reads configs, files or videos.
FOREIGN = ("yaml", "fvcore", "iopath", "fsspec", "safetensors", "simplejson", "torchvision", "av")
# Of this package. An autoencoder also loads the part that its kind shares, and the masking
# strategies, a file each, with their lookup.
MAX_MODULES = {"hiera": 19, "hiera_mae": 25}


def imported_by(code):
    """Return the names of all modules that a new process has imported after `code`."""
    code += "; import json, sys; print(json.dumps(list(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("family", MAX_MODULES)
def test_a_model_loads_no_config_no_checkpoints_and_no_data(family):
    names = imported_by(f"import hiera_video.models.{family}")
    ours = [name for name in names if name.split(".")[0] == "hiera_video"]
    rooms = {name.split(".")[1] for name in ours if "." in name}
    assert rooms == {"models", "utils", "version"}
    assert len(ours) <= MAX_MODULES[family], sorted(ours)
    assert not set(FOREIGN) & {name.split(".")[0] for name in names}


def test_the_public_names_lead_to_models_without_a_config():
    names = imported_by("import hiera_video; hiera_video.hiera_base_224; hiera_video.load_model")
    assert not [name for name in names if name.startswith("hiera_video.config")]
    assert hiera_video.from_pretrained.__module__ == "hiera_video.models.load"
