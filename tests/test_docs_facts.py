"""What the pages say of messages, models and configs is what the code has."""

import ast
import re
from functools import cache

import pytest
import torch

import hiera_video
from hiera_video.checkpoints.published import published_files
from hiera_video.config import load_config

from .doc_pages import ROOT

ELLIPSIS = "…"
HOLE = "\0"  # what a message fills in


@cache
def messages() -> list[str]:
    """Return every text that the package or a tool holds, with HOLE for what is filled in."""
    found = []
    for folder in ("hiera_video", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(_text(part) for part in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return [text.replace("`", "") for text in found if " " in text]


def _text(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else HOLE


def is_said(heading: str) -> bool:
    """Say whether some message holds the words of a heading, in their order, around its gaps."""
    parts = [part.strip() for part in heading.split(ELLIPSIS)]
    pattern = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
    near = (text for text in messages() if all(part in text for part in parts))
    return any(pattern.search(text) for text in near)


def faq_headings() -> list[str]:
    text = (ROOT / "docs" / "faq.md").read_text()
    ours = text.partition("## Messages of others")[0]
    return re.findall(r"^### `(.+)`$", ours, re.MULTILINE)


def test_faq_has_an_entry_for_every_likely_error():
    assert len(faq_headings()) >= 25
    assert len(set(faq_headings())) == len(faq_headings())


@pytest.mark.parametrize("heading", faq_headings())
def test_messages_of_the_faq_are_said(heading):
    assert is_said(heading)


def test_a_message_that_is_not_said_is_found():
    assert not is_said("… must be a teapot, got …")
    assert not is_said("got …, NUM_GPUS must be")


def rows(page: str, start: str) -> list[list[str]]:
    """Return the cells of a page's table rows whose first cell begins with `start`."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [row for row in cells if row[0].startswith(start)]


@pytest.mark.parametrize("prefix", ["hiera_", "mae_hiera_"])
def test_zoo_lists_each_model_with_its_parameters_and_flops(prefix):
    listed = {row[0].strip("`"): row for row in rows("zoo.md", f"`{prefix}") if len(row) > 3}
    public = {name for name in hiera_video.__all__ if name.startswith(prefix)}
    assert listed.keys() == {name for name in public if "micro" not in name}
    flops = {row[0].strip("`"): row for row in rows("flops.md", f"`{prefix}")}
    for name, row in listed.items():
        with torch.device("meta"):
            model = getattr(hiera_video, name)()
        parameters = f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.2f} M"
        # docs/flops.md is held against fvcore by a test of its own.
        is_autoencoder = prefix == "mae_hiera_"
        gflops = flops[name][4 if is_autoencoder else 2]
        assert (row[1:3] if is_autoencoder else row[3:5]) == [parameters, gflops]
        if is_autoencoder:
            assert row[4].strip("`") in published_files(name)
        else:
            assert row[1].strip("`").split("-")[0] == str(model.patch_embed.proj.out_channels)


def test_zoo_names_the_published_weights():
    named = {row[0].strip("`") for row in rows("zoo.md", "`mae_") if len(row) == 3}
    models = [name for name in hiera_video.__all__ if "hiera_" in name and "_" in name]
    assert named == {name for model in models for name in published_files(model)}


@pytest.mark.parametrize("size", ["B", "BPLUS", "L", "H"])
def test_recipes_tell_of_the_batches_of_the_configs(size):
    column = ["B", "BPLUS", "L", "H"].index(size) + 1
    told = [row[column] for row in rows("recipes.md", "videos x samples at a time")]
    for config, text in zip((size, f"{size}_MAE_PT"), told, strict=True):
        cfg = load_config(f"{ROOT}/configs/Kinetics/HIERA_{config}.yaml")
        assert text == f"{cfg.TRAIN.BATCH_SIZE} x {cfg.AUG.NUM_SAMPLE}"


def test_batches_for_several_gpus_are_the_same_step():
    table = [row for row in rows("recipes.md", "") if "ACCUM_STEPS " in "".join(row[1:2])]
    assert len(table) == 5
    for row in table:
        words = row[1].strip("`").split()
        cfg = load_config(f"{ROOT}/configs/Kinetics/HIERA_B.yaml", words)
        machines = int(row[0].split()[0]) if "machines" in row[0] else 1
        assert cfg.TRAIN.BATCH_SIZE * machines * cfg.SOLVER.ACCUM_STEPS == 256
