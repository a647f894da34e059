"""docs/extending.md, followed: its files are put into a copy of the package, and a run uses all."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from .doc_pages import ROOT

PAGE = ROOT / "docs/extending.md"
SMALL = (
    "NUM_GPUS 0 DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 1 DATA.TRAIN_CROP_SIZE 32 "
    "DATA.TEST_CROP_SIZE 32 TRAIN.BATCH_SIZE 4 DATA_LOADER.NUM_WORKERS 0 SOLVER.MAX_EPOCH 1 "
    "TENSORBOARD.ENABLE False TRAIN.DATASET by_name DATA.DECODING_BACKEND npz"
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the package with the page's files, and a data set that only they can read."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("hiera_video", "tools", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    blocks = re.findall(
        r"```python\n# (hiera_video/\S+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert len(blocks) == 5
    for name, source in blocks:
        assert not (folder / name).exists()
        (folder / name).write_text(source)
    rng = np.random.default_rng(0)
    for split, number in {"train": 4, "val": 2, "test": 2}.items():
        (folder / "data" / split).mkdir(parents=True)
        for kind in ("boxing", "diving"):
            for index in range(number):
                frames = rng.integers(256, size=(8, 40, 48, 3), dtype=np.uint8)
                path = folder / "data" / split / f"{kind}_{index:03}.npz"
                np.savez(path, frames=frames, fps=30.0)
    return folder


def run(clone, config, words, output):
    words = f"{words} DATA.PATH_TO_DATA_DIR data OUTPUT_DIR {output}"
    command = [sys.executable, "tools/run_net.py", "--cfg", f"configs/Demo/{config}.yaml"]
    done = subprocess.run(
        [*command, *SMALL.split(), *words.split()],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(clone)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return clone / output


@pytest.mark.slow
def test_a_training_with_a_new_data_set_decoder_family_and_metric(clone):
    words = "MODEL.ARCH tiny_cnn MODEL.MODEL_NAME tiny_cnn MODEL.NUM_CLASSES 2 TEST.DATASET by_name"
    output = run(clone, "HIERA_MICRO", words, "trained")
    results = json.loads((output / "test_results.json").read_text())
    assert results["num_evaluated"] == 4
    assert 1 <= results["mean_rank"] <= 2


@pytest.mark.slow
def test_a_pretraining_with_a_new_strategy(clone):
    output = run(
        clone,
        "HIERA_MICRO_MAE_PT",
        "MASK.STRATEGY corner DATA.TRAIN_CROP_SIZE 64 DATA.TEST_CROP_SIZE 64",
        "pretrained",
    )
    assert "STRATEGY: corner" in (output / "config.yaml").read_text()
    assert "training mae_hiera_micro_8x64" in (output / "stdout.log").read_text()
