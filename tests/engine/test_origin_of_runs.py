"""The origin of weights stays with a run: over a resume, in the model card and in the report."""

from pathlib import Path

import pytest
import torch

from hiera_video.checkpoints.run_folder import best_path, checkpoint_path
from hiera_video.engine.launch import launch
from hiera_video.export.card import PUBLISHED_LICENCE
from hiera_video.export.model import Export, export_model
from hiera_video.models.origin import origin_of
from hiera_video.report.run_files import read_runs
from hiera_video.report.summary import table

THEIRS = "mae_hiera_base_16x224.pyth"  # a name of the authors', as a local copy has


def started_from(folder):
    runs = read_runs([folder])
    (row,) = [row for row in table(runs, {}) if row.label == "started from"]
    return row.cells[0]


def card_of(checkpoint, folder):
    export_model(Export(checkpoint=str(checkpoint), output=str(folder)), tell=lambda line: None)
    return (folder / "README.md").read_text()


def without_origin(path):
    """Make of a checkpoint what an earlier release wrote."""
    content = torch.load(path, weights_only=True)
    del content["origin"]
    torch.save(content, path)


@pytest.fixture
def weights(small_cfg, tmp_path):
    """Return weights that fit, under the name of a file of the authors'."""
    cfg = small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 1", f"OUTPUT_DIR {tmp_path / 'theirs'}")
    launch(cfg)
    path = tmp_path / THEIRS
    Path(checkpoint_path(cfg.OUTPUT_DIR, 1)).rename(path)
    return path


def test_a_run_from_the_authors_weights_that_is_resumed_without_them(small_cfg, tmp_path, weights):
    words = "TEST.ENABLE False"
    cfg = small_cfg(words, f"SOLVER.MAX_EPOCH 1 TRAIN.CHECKPOINT_FILE_PATH {weights}")
    launch(cfg)
    launch(small_cfg(words, "SOLVER.MAX_EPOCH 2"))
    for path in (checkpoint_path(cfg.OUTPUT_DIR, 2), best_path(cfg.OUTPUT_DIR)):
        origin = origin_of(path, None)
        assert (origin.kind, origin.start, origin.weights) == ("derived", THEIRS, str(weights))
    card = card_of(checkpoint_path(cfg.OUTPUT_DIR, 2), tmp_path / "card")
    assert f"license: {PUBLISHED_LICENCE.lower()}" in card
    assert f"from `{THEIRS}`" in card
    assert "from scratch" not in card
    for exported in (tmp_path / "card", tmp_path / "card" / "model.safetensors"):
        assert origin_of(str(exported), cfg.TRAIN.CHECKPOINT_FILE_PATH).start == THEIRS
    assert str(weights) not in (tmp_path / "card" / "hiera_video.json").read_text()
    assert started_from(cfg.OUTPUT_DIR) == f"{weights} (licence of the weights: CC-BY-NC-4.0)"
    # A run that starts from this one has the licence, too, wherever the first file is by then.
    weights.unlink()
    next_cfg = small_cfg(
        f"{words} SOLVER.MAX_EPOCH 1 OUTPUT_DIR {tmp_path / 'next'} "
        f"TRAIN.CHECKPOINT_FILE_PATH {best_path(cfg.OUTPUT_DIR)}"
    )
    launch(next_cfg)
    origin = origin_of(checkpoint_path(next_cfg.OUTPUT_DIR, 1), None)
    assert (origin.kind, origin.start) == ("derived", THEIRS)


def test_a_run_from_scratch_that_is_resumed_with_weights_named(small_cfg, tmp_path, weights):
    words = "TEST.ENABLE False"
    cfg = small_cfg(words, "SOLVER.MAX_EPOCH 1")
    launch(cfg)
    launch(small_cfg(words, f"SOLVER.MAX_EPOCH 2 TRAIN.CHECKPOINT_FILE_PATH {weights}"))
    log = Path(cfg.OUTPUT_DIR, "stdout.log").read_text()
    assert (
        f"TRAIN.CHECKPOINT_FILE_PATH '{weights}' is not used: the run goes on from its own" in log
    )
    card = card_of(checkpoint_path(cfg.OUTPUT_DIR, 2), tmp_path / "card")
    assert "license:" not in card.split("---")[1]
    assert "The run started from fresh weights" in card
    assert f"from scratch (not from `{THEIRS}`, as stated below)" in card
    assert started_from(cfg.OUTPUT_DIR) == f"fresh weights ({weights} is named but not used)"


def test_checkpoints_of_earlier_releases_say_it_by_their_config(small_cfg, tmp_path, weights):
    words = "TEST.ENABLE False"
    cfg = small_cfg(words, f"SOLVER.MAX_EPOCH 1 TRAIN.CHECKPOINT_FILE_PATH {weights}")
    launch(cfg)
    without_origin(checkpoint_path(cfg.OUTPUT_DIR, 1))
    launch(small_cfg(words, "SOLVER.MAX_EPOCH 2"))
    origin = origin_of(checkpoint_path(cfg.OUTPUT_DIR, 2), None)
    assert (origin.kind, origin.weights) == ("derived", str(weights))
    without_origin(checkpoint_path(cfg.OUTPUT_DIR, 2))
    assert "from scratch" in card_of(checkpoint_path(cfg.OUTPUT_DIR, 2), tmp_path / "card")
    assert started_from(cfg.OUTPUT_DIR) == "fresh weights"
