import os
import signal

import numpy as np
import pytest
import simplejson
import torch

from hiera_video.data.build import build_loader, read_records
from hiera_video.engine.launch import launch
from hiera_video.engine.test import weights_to_test
from hiera_video.models.build import build_model
from hiera_video.utils import io
from hiera_video.utils.errors import UserError


@pytest.fixture
def checkpoint(small_cfg, tmp_path):
    """Return the path of random weights that fit the small config."""
    torch.manual_seed(0)
    path = str(tmp_path / "weights.pyth")
    torch.save({"model_state": build_model(small_cfg()).state_dict()}, path)
    return path


def test_scores_are_the_mean_over_views_of_softmax_one_view_at_a_time(small_cfg, checkpoint):
    cfg = small_cfg(f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {checkpoint} TEST.BATCH_SIZE 5")
    result = launch(cfg)
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model_state"])
    loader = build_loader(cfg, "test", read_records(cfg, "test"))
    for batch in loader.batches():
        batch = batch.to(torch.device("cpu"))
        with torch.no_grad():
            views = [model(clip[None]).softmax(-1)[0] for clip in batch.clips_BCTHW]
        expected = torch.stack(views).unflatten(0, (-1, 6)).mean(1).numpy()
        indices = batch.video_indices_B[::6].numpy()
        assert np.allclose(result.scores_NK[indices], expected, atol=1e-6)


def test_the_table_of_views_has_one_row_for_one_view(small_cfg, checkpoint):
    cfg = small_cfg(
        f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {checkpoint} TEST.VIEWS_TABLE True",
        "TEST.NUM_TEMPORAL_CLIPS 1 TEST.NUM_SPATIAL_CROPS 1",
    )
    result = launch(cfg)
    with io.open_file(f"{cfg.OUTPUT_DIR}/stdout.log") as file:
        table = file.read().partition("top-1 by views (clips x crops):\n")[2].splitlines()
    assert table[0].split() == ["1x1", f"{result.top1:.2%}"]
    assert "x1" not in table[1]


def broken_set(folder, tiny_set):
    """Write a test split of two good videos and three bad ones, as absolute paths."""
    with io.open_file(f"{tiny_set}/test.csv") as file:
        good = [f"{tiny_set}/{line.strip()}" for line in file][:2]
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("no video")
    bad = [f"{folder / name} 1" for name in ("zero.mp4", "text.mp4", "missing file.mp4")]
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("\n".join([good[0], *bad, good[1]]) + "\n")


def test_videos_that_do_not_decode_are_named_and_not_replaced(
    small_cfg, checkpoint, tiny_set, tmp_path, capsys
):
    broken_set(tmp_path, tiny_set)
    cfg = small_cfg(
        f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {checkpoint}",
        f"DATA.PATH_TO_DATA_DIR {tmp_path} DATA_LOADER.NUM_WORKERS 2 TEST.BATCH_SIZE 12",
        "DATA.MAX_BAD_FRACTION 0.6",
    )
    result = launch(cfg)
    assert result.num_evaluated == 2
    assert result.num_videos == 5
    assert "2 of 5 videos evaluated" in capsys.readouterr().out
    with io.open_file(f"{cfg.OUTPUT_DIR}/test_results.json") as file:
        missing = simplejson.load(file)["not_evaluated"]
    assert [entry["path"].split("/")[-1] for entry in missing] == [
        "zero.mp4",
        "text.mp4",
        "missing file.mp4",
    ]
    assert all(entry["path"] in entry["reason"] for entry in missing)


def test_training_replaces_videos_that_do_not_decode_and_says_so(
    small_cfg, tiny_set, tmp_path, capsys
):
    broken_set(tmp_path, tiny_set)
    cfg = small_cfg(
        f"DATA.PATH_TO_DATA_DIR {tmp_path} TRAIN.BATCH_SIZE 5 SOLVER.MAX_EPOCH 1 TEST.ENABLE False",
        "DATA.MAX_BAD_FRACTION 0.8",
    )
    launch(cfg)
    out = capsys.readouterr().out
    assert out.count("zero.mp4: is empty (0 bytes). Another") == 1  # however often it was drawn
    assert "Another video took its place" in out
    assert "2 of 5 videos evaluated" in out  # the validation


def test_a_test_with_too_many_bad_videos_keeps_its_results_and_ends_in_an_error(
    small_cfg, checkpoint, tiny_set, tmp_path
):
    broken_set(tmp_path, tiny_set)
    cfg = small_cfg(
        f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {checkpoint}",
        f"DATA.PATH_TO_DATA_DIR {tmp_path} DATA.MAX_BAD_FRACTION 0.59",
    )
    with pytest.raises(UserError, match=r"MAX_BAD_FRACTION.*3 of the 5 videos.*test.*zero"):
        launch(cfg)
    with io.open_file(f"{cfg.OUTPUT_DIR}/test_results.json") as file:
        assert simplejson.load(file)["num_evaluated"] == 2


def test_training_with_too_many_bad_videos_stops(small_cfg, tiny_set, tmp_path):
    broken_set(tmp_path, tiny_set)
    cfg = small_cfg(
        f"DATA.PATH_TO_DATA_DIR {tmp_path} TRAIN.BATCH_SIZE 5 SOLVER.MAX_EPOCH 1 TEST.ENABLE False",
        "DATA.MAX_BAD_FRACTION 0.2",
    )
    with pytest.raises(UserError, match=r"MAX_BAD_FRACTION.*got 0.2.*tools/check_data.py"):
        launch(cfg)
    assert not io.exists(f"{cfg.OUTPUT_DIR}/checkpoints/checkpoint_epoch_00001.pyth")


def test_bad_videos_of_the_validation_end_the_run_after_it_is_done(small_cfg, tiny_set, tmp_path):
    broken_set(tmp_path, tiny_set)
    with io.open_file(f"{tiny_set}/train.csv") as file:
        good = [f"{tiny_set}/{line.strip()}" for line in file]
    (tmp_path / "train.csv").write_text("\n".join(good) + "\n")
    cfg = small_cfg(f"DATA.PATH_TO_DATA_DIR {tmp_path} SOLVER.MAX_EPOCH 1 TEST.ENABLE False")
    with pytest.raises(UserError, match=r"MAX_BAD_FRACTION.*videos of the val split"):
        launch(cfg)
    assert io.exists(f"{cfg.OUTPUT_DIR}/checkpoints/checkpoint_epoch_00001.pyth")


def test_a_split_without_one_good_video_stops_the_run(small_cfg, checkpoint, tmp_path):
    (tmp_path / "empty.mp4").touch()
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("empty.mp4 0\n")
    data = f"DATA.PATH_TO_DATA_DIR {tmp_path}"
    with pytest.raises(UserError, match="no video of the test split.*empty.mp4"):
        launch(small_cfg(data, f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {checkpoint}"))
    with pytest.raises(UserError, match="no video of a training batch.*empty.mp4"):
        launch(small_cfg(data))


def test_weights_to_test_are_those_named_then_the_runs_own_then_the_start(small_cfg, tmp_path):
    named = small_cfg("TEST.CHECKPOINT_FILE_PATH a.pyth TRAIN.CHECKPOINT_FILE_PATH b.pyth")
    assert weights_to_test(named) == ("a.pyth", "TEST.CHECKPOINT_FILE_PATH")
    start = small_cfg("TRAIN.CHECKPOINT_FILE_PATH b.pyth")
    assert weights_to_test(start) == ("b.pyth", "TRAIN.CHECKPOINT_FILE_PATH")
    own = tmp_path / "output" / "checkpoints" / "checkpoint_epoch_00003.pyth"
    own.parent.mkdir(parents=True)
    own.touch()
    assert weights_to_test(start) == (str(own), "OUTPUT_DIR")
    own.unlink()
    with pytest.raises(UserError, match="TEST.CHECKPOINT_FILE_PATH must name the weights"):
        weights_to_test(small_cfg())


def test_weights_that_are_not_finite_do_not_pass_for_right_ones(small_cfg, tmp_path):
    model = build_model(small_cfg())
    torch.nn.init.constant_(model.norm.weight, float("nan"))
    path = str(tmp_path / "nan.pyth")
    torch.save(model.state_dict(), path)
    with pytest.raises(UserError, match="must hold finite numbers .*: norm.weight holds NaN"):
        launch(small_cfg(f"TRAIN.ENABLE False TEST.CHECKPOINT_FILE_PATH {path}"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\n", "MODEL.NUM_CLASSES must be the 2 classes"),
        (b"a\n\nb\n", "classes.txt:2: a line must be a class name"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_class_names_that_do_not_fit_are_refused_at_the_start(
    small_cfg, tiny_set, checkpoint, tmp_path, content, words
):
    for name in ("train.csv", "val.csv", "test.csv"):
        (tmp_path / name).write_text("a.mp4 0\n")
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        launch(small_cfg(f"DATA.PATH_TO_DATA_DIR {tmp_path}"))


def test_a_test_alone_keeps_the_config_of_the_training(small_cfg):
    launch(small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 1"))
    config = io.open_file(small_cfg().OUTPUT_DIR + "/config.yaml").read()
    launch(small_cfg("TRAIN.ENABLE False"))
    assert io.open_file(small_cfg().OUTPUT_DIR + "/config.yaml").read() == config
    assert "ENABLE: false" in io.open_file(small_cfg().OUTPUT_DIR + "/config_test.yaml").read()


def test_a_list_in_the_wrong_folder_is_noticed_before_anything_is_read(small_cfg, tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("".join(f"video{i}.mp4 0\n" for i in range(30)))
    with pytest.raises(UserError, match="train split are not where its list says.*nor do 9 others"):
        launch(small_cfg(f"DATA.PATH_TO_DATA_DIR {tmp_path}"))
    assert not io.exists(small_cfg().OUTPUT_DIR)


def test_loader_processes_killed_again_and_again_are_told_in_one_line(small_cfg, checkpoint):
    cfg = small_cfg("DATA_LOADER.NUM_WORKERS 1")
    loader = build_loader(cfg, "test", read_records(cfg, "test"))
    loader._read._dataset.make_views = kill_this_process
    with pytest.raises(UserError, match=r"processes were killed.*SIGKILL.*fewer DATA_LOADER.NUM_W"):
        list(loader.batches())


def kill_this_process(reader, rng, allocate):
    os.kill(os.getpid(), signal.SIGKILL)
