"""One score per video, whatever the number of processes."""

import numpy as np
import pytest
import simplejson
import torch

from hiera_video.config import load_config
from hiera_video.models.build import build_model


@pytest.fixture
def tested(small_run, ranks, tmp_path):
    """Test random weights in so many processes; return the scores and the results."""

    def run(num_processes, *more):
        words = small_run("TRAIN.ENABLE False TEST.ENABLE True", *more, name=f"test{num_processes}")
        weights = tmp_path / "weights.pyth"
        if not weights.exists():
            torch.manual_seed(0)
            model = build_model(load_config(words[2], words[3:]))
            torch.save({"model_state": model.state_dict()}, weights)
        ended = ranks(num_processes, *words, "TEST.CHECKPOINT_FILE_PATH", weights)
        assert ended.status == 0, ended.err
        folder = tmp_path / f"test{num_processes}"
        with np.load(folder / "test_scores.npz") as file:
            scores = {name: file[name] for name in file.files}
        return scores, simplejson.loads((folder / "test_results.json").read_text()), ended.out

    return run


def same(one, other):
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("num_processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_scores_are_those_of_one_process_bit_for_bit(tested, num_processes):
    # Two videos in a batch: 4 batches for 2 or 3 processes.
    views = "TEST.BATCH_SIZE 12 TEST.VIEWS_TABLE True"
    (alone, results, _), (shared, others, _) = tested(1, views), tested(num_processes, views)
    assert len(alone["paths"]) == 8
    same(alone, shared)
    assert results == others


@pytest.mark.slow
def test_more_processes_than_videos_and_files_that_do_not_decode(tested, tiny_set, tmp_path):
    with open(f"{tiny_set}/test.csv", encoding="utf-8") as file:
        good = [f"{tiny_set}/{line.strip()}" for line in file][:1]
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    for split in ("train", "val", "test"):
        lines = [f"{tmp_path}/zero.mp4 1", *good, f"{tmp_path}/text.mp4 1"]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    few = f"DATA.PATH_TO_DATA_DIR {tmp_path} TEST.BATCH_SIZE 6 DATA.MAX_BAD_FRACTION 0.7"
    (alone, results, _), (shared, others, out) = tested(1, few), tested(4, few)
    same(alone, shared)
    assert results == others
    assert len(shared["paths"]) == 1
    assert [entry["path"].split("/")[-1] for entry in others["not_evaluated"]] == [
        "zero.mp4",
        "text.mp4",
    ]
    for name in ("zero.mp4", "text.mp4"):
        assert out.count(f"{name}") == 1  # rank 0 says it, whoever has found it


# The run itself, but that rank 0 takes its time over the last file that it writes.
SLOW = """
import sys, time
sys.path.insert(0, "tools")
import run_net
from hiera_video.engine import {module} as module
from hiera_video.utils import cli

write = module.{function}

def slowly(*arguments, **settings):
    time.sleep(6)
    return write(*arguments, **settings)

module.{function} = slowly
cli.run(run_net.main)
"""


@pytest.fixture
def one_bad_video(tiny_set, tmp_path):
    """A data folder whose lists of validation and test have a video that does not decode."""
    (tmp_path / "zero.mp4").touch()
    for split in ("train", "val", "test"):
        with open(f"{tiny_set}/{split}.csv", encoding="utf-8") as file:
            lines = [f"{tiny_set}/{line.strip()}" for line in file]
        lines += [f"{tmp_path}/zero.mp4 1"] * (split != "train")
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return f"DATA.PATH_TO_DATA_DIR {tmp_path} DATA.MAX_BAD_FRACTION 0.0"


@pytest.mark.slow
def test_an_error_in_the_end_waits_for_what_rank_0_writes(
    torchrun, script, small_run, one_bad_video, tmp_path
):
    # torchrun ends the others where one process ends with an error.
    folder = tmp_path / "output"
    slow = script(SLOW.format(module="train", function="write_checkpoint"))
    trained = torchrun(2, slow, *small_run("SOLVER.MAX_EPOCH 1", one_bad_video)[1:])
    assert trained.err.count("error: DATA.MAX_BAD_FRACTION must be at least") == 1
    assert (folder / "checkpoints" / "checkpoint_best.pyth").exists()
    assert (folder / "checkpoints" / "validations.json").exists()
    slow = script(SLOW.format(module="test", function="save_confusion_png"))
    words = small_run("TRAIN.ENABLE False TEST.ENABLE True TEST.BATCH_SIZE 6", one_bad_video)
    tested = torchrun(2, slow, *words[1:])
    assert tested.err.count("error: DATA.MAX_BAD_FRACTION must be at least") == 1
    assert (folder / "test_confusion.png").exists()
