"""A data set whose class names contradict those of a checkpoint."""

from pathlib import Path

import pytest
import torch

from hiera_video.checkpoints.run_folder import checkpoint_path
from hiera_video.engine.launch import launch
from hiera_video.inference.load import load_trained
from hiera_video.utils.errors import UserError


@pytest.fixture
def data_set(tiny_set, tmp_path):
    """Make a data set of the same videos whose classes have other names; return its words."""

    def make(kind, names):
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "kinetics":
            for split in ("train", "val", "test"):
                (folder / f"{split}.csv").write_text((Path(tiny_set) / f"{split}.csv").read_text())
            (folder / "classes.txt").write_text("\n".join(names))
            prefix = f"DATA.PATH_PREFIX {tiny_set}"
        else:
            for line in (Path(tiny_set) / "test.csv").read_text().splitlines():
                path, label = line.split()
                for split in ("train", "val", "test"):
                    video = folder / split / names[int(label)] / Path(path).name
                    video.parent.mkdir(parents=True, exist_ok=True)
                    video.symlink_to(Path(tiny_set, path).resolve())
            prefix = "TRAIN.DATASET folder TEST.DATASET folder"
        return f"DATA.PATH_TO_DATA_DIR {folder} {prefix}"

    return make


@pytest.fixture
def trained(small_cfg):
    cfg = small_cfg("SOLVER.MAX_EPOCH 1 TEST.ENABLE False")
    launch(cfg)
    path = checkpoint_path(cfg.OUTPUT_DIR, 1)
    return path, torch.load(path, weights_only=True)["class_names"]


def swapped(names):
    return [names[1], names[0], *names[2:]]


@pytest.mark.parametrize("kind", ["kinetics", "folder"])
def test_a_test_and_a_resume_are_refused_and_a_fine_tuning_says_so(
    small_cfg, trained, data_set, tmp_path, kind
):
    path, names = trained
    # Folders are numbered by the alphabet, and the list here is not.
    others = swapped(names) if kind == "kinetics" else sorted(names)
    label = next(label for label, name in enumerate(names) if name != others[label])
    said = (
        f"class {label} is '{names[label]}' in the checkpoint and '{others[label]}' here; the "
        "names are the same in another order"
    )
    words = data_set(kind, others if kind == "kinetics" else names)
    for mode in (
        "TRAIN.ENABLE False",  # of the last one in OUTPUT_DIR
        f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {path}",
        "TEST.ENABLE False SOLVER.MAX_EPOCH 2",
    ):
        with pytest.raises(UserError, match=said):
            launch(small_cfg(words, mode))
    tuned = tmp_path / "tuned"
    cfg = small_cfg(
        words,
        f"TEST.ENABLE False SOLVER.MAX_EPOCH 1 TRAIN.CHECKPOINT_FILE_PATH {path} "
        f"OUTPUT_DIR {tuned}",
    )
    launch(cfg)
    log = (tuned / "stdout.log").read_text()
    assert f"the classifier of '{path}' was trained for other classes: {said}" in log


def test_names_that_are_written_otherwise_do_not_contradict(small_cfg, trained, data_set):
    _, names = trained
    words = data_set("kinetics", ["\ufeff" + names[0].upper(), *names[1:]])
    assert launch(small_cfg(words, "TRAIN.ENABLE False")).num_evaluated == 8


def test_names_given_to_predict_may_be_others_but_not_reordered(trained):
    path, names = trained
    letters = tuple("abcdefgh")
    assert load_trained(path, class_names=letters).class_names == letters
    assert load_trained(path, class_names=names).class_names == tuple(names)
    with pytest.raises(UserError, match=f"class 0 is '{names[0]}' in the checkpoint and"):
        load_trained(path, class_names=swapped(names))
