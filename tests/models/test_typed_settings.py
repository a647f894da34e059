"""Editors and type checkers know the arguments of models."""

import importlib.resources
import inspect
import subprocess
import sys
from typing import get_args, get_origin, get_type_hints

import pytest
from typing_extensions import Unpack

import hiera_video
from hiera_video.checkpoints.hub import default_settings
from hiera_video.models import hiera, hiera_mae
from hiera_video.models.hiera import Hiera
from hiera_video.models.hiera_mae import MaskedAutoencoderHiera
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.settings import (
    EncoderSettings,
    HieraSettings,
    MAESettings,
    ModelSettings,
)
from hiera_video.utils.lookup import public_functions

TYPES = {
    HieraEncoder: EncoderSettings,
    Hiera: HieraSettings,
    MaskedAutoencoderHiera: MAESettings,
}


@pytest.mark.parametrize("model_class", TYPES, ids=lambda c: c.__name__)
def test_the_types_are_those_of_the_constructors(model_class):
    typed = get_type_hints(TYPES[model_class])
    assert typed.keys() == default_settings(model_class).keys()
    declared = {}
    for base in reversed(model_class.__mro__):
        if "__init__" in vars(base):
            declared |= get_type_hints(base.__init__)
    assert {name: declared[name] for name in typed} == typed


def settings_of(function):
    """Return the TypedDict of a function's `**` argument."""
    (name,) = [
        p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD
    ]
    hint = get_type_hints(function)[name]
    assert get_origin(hint) is Unpack
    return get_args(hint)[0]


def test_every_model_function_names_its_settings():
    for family, wanted in ((hiera, HieraSettings), (hiera_mae, MAESettings)):
        for function in public_functions(family).values():
            assert settings_of(function) is wanted
    for function in (hiera_video.load_model, hiera_video.from_pretrained, Hiera.from_pretrained):
        assert settings_of(function) is ModelSettings


def test_the_package_says_that_it_is_typed():
    assert importlib.resources.files("hiera_video").joinpath("py.typed").is_file()


SNIPPET = """
from hiera_video.models.hiera import Hiera, hiera_base_16x224
from hiera_video.models.hiera_mae import mae_hiera_base_16x224
from hiera_video.models.load import load_model

model: Hiera = hiera_base_16x224(num_classes=3, drop_path_rate=0.1)
Hiera(num_clases=3)
hiera_base_16x224(drop_path="a lot")
hiera_base_16x224(drop_path_rate="a lot")
mae_hiera_base_16x224(num_classes=3)
load_model("hiera_base_16x224", checkpiont="x")
"""


@pytest.mark.slow
def test_mypy_finds_misspelt_and_mistyped_arguments(tmp_path):
    (tmp_path / "script.py").write_text(SNIPPET)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--ignore-missing-imports",
        str(tmp_path / "script.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = [line for line in done.stdout.splitlines() if line.startswith("script.py:")]
    assert [int(line.split(":")[1]) for line in lines if "error:" in line] == [7, 8, 9, 10, 11]
    assert '"num_clases"' in lines[0]
