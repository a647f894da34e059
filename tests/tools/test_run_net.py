import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from hiera_video.models.hiera import hiera_micro_8x64


def one_error(outcome, *words):
    """Check that a tool ended as a person wants it to: the error, no traceback, not 0."""
    assert outcome.status == 1
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err + outcome.out
    for word in words:
        assert word in outcome.err


def test_train_then_test_then_test_alone_agree(run_tool, small_run, tmp_path):
    trained = run_tool("run_net", small_run)
    assert trained.status == 0
    assert "test: top-1" in trained.out
    scores = np.load(tmp_path / "output" / "test_scores.npz")["scores"]
    weights = tmp_path / "output" / "checkpoints" / "checkpoint_epoch_00001.pyth"
    tested = run_tool(
        "test_net",
        f"--views-table {small_run} OUTPUT_DIR {tmp_path / 'again'} "
        f"TEST.CHECKPOINT_FILE_PATH {weights}",
    )
    assert tested.status == 0
    assert "top-1 by views (clips x crops):\n    1x1" in tested.out
    assert np.array_equal(np.load(tmp_path / "again" / "test_scores.npz")["scores"], scores)
    assert not (tmp_path / "again" / "checkpoints").exists()


def test_a_test_alone_takes_the_last_checkpoint_or_says_that_there_is_none(
    run_tool, small_run, tmp_path
):
    one_error(run_tool("test_net", small_run), "TEST.CHECKPOINT_FILE_PATH must name")
    assert not (tmp_path / "output").exists()
    assert run_tool("run_net", f"{small_run} TEST.ENABLE False").status == 0
    tested = run_tool("test_net", small_run)
    assert tested.status == 0
    assert "checkpoint_epoch_00001.pyth on 8 videos" in tested.out


def test_json_stats_of_an_epoch_are_on_the_console_and_all_are_in_the_log(
    run_tool, small_run, tmp_path
):
    out = run_tool("run_net", f"{small_run} LOG_PERIOD 1").out
    log = (tmp_path / "output" / "stdout.log").read_text()
    for kind in ("train_epoch", "val_epoch", "test_final"):
        assert f'json_stats: {{"_type": "{kind}"' in out
    assert '"train_iter"' not in out
    assert log.count('json_stats: {"_type": "train_iter"') == 2
    assert "epoch 1/1 iteration 2/2 loss" in out


def test_without_data_it_stops_at_once_and_says_what_is_missing(run_tool, tmp_path):
    outcome = run_tool(
        "run_net", f"--cfg configs/Kinetics/HIERA_B.yaml NUM_GPUS 0 OUTPUT_DIR {tmp_path}/out"
    )
    one_error(outcome, "train.csv", "val.csv", "test.csv", "path label", "make demo")
    assert not (tmp_path / "out").exists()


def test_ssv2_without_data_says_what_is_missing(run_tool):
    one_error(
        run_tool("run_net", "--cfg configs/SSv2/HIERA_L.yaml NUM_GPUS 0"), "json", "make demo"
    )


def test_typing_errors_are_reported_together(run_tool, small_run):
    outcome = run_tool("run_net", f"{small_run} TRAIN.BATCHSIZE 4 SOLVER.BASE_LR fast")
    one_error(outcome, "TRAIN.BATCH_SIZE", "SOLVER.BASE_LR")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["train.csv", "empty"]),
        ("a.mp4\n", ["train.csv:1", "without a label"]),
        ("a.mp4 0\nb.mp4 8\n", ["train.csv:2", "0..7", "MODEL.NUM_CLASSES", "got 8"]),
        ("path label\na.mp4 0\n", ["train.csv:1", "header"]),
    ],
)
def test_wrong_lists_name_file_and_line(run_tool, small_run, tmp_path, content, words):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text(content)
    one_error(run_tool("run_net", f"{small_run} DATA.PATH_TO_DATA_DIR {tmp_path}"), *words)


def test_a_directory_for_a_file_is_named(run_tool, small_run, tmp_path):
    (tmp_path / "train.csv").mkdir()
    outcome = run_tool("run_net", f"{small_run} DATA.PATH_TO_DATA_DIR {tmp_path}")
    one_error(outcome, "train.csv", "directory")
    outcome = run_tool("run_net", f"{small_run} TRAIN.CHECKPOINT_FILE_PATH {tmp_path}")
    one_error(outcome, "TRAIN.CHECKPOINT_FILE_PATH")
    one_error(run_tool("run_net", "--cfg configs/Demo"), "configs/Demo")
    one_error(run_tool("run_net", "--cfg configs/NONE.yaml"), "configs/NONE.yaml")


def test_an_output_dir_that_cannot_be_made_is_named(run_tool, small_run, tmp_path):
    (tmp_path / "file").touch()
    one_error(run_tool("run_net", f"{small_run} OUTPUT_DIR {tmp_path}/file/out"), "OUTPUT_DIR")


def test_a_checkpoint_of_another_model_is_refused_and_nothing_is_lost(
    run_tool, small_run, tmp_path
):
    other = tmp_path / "other.pyth"
    torch.save({"model_state": hiera_micro_8x64(embed_dim=16).state_dict()}, other)
    for key in ("TRAIN", "TEST"):
        outcome = run_tool("run_net", f"{small_run} {key}.CHECKPOINT_FILE_PATH {other}")
        one_error(outcome, f"{key}.CHECKPOINT_FILE_PATH", "another model", str(other))
    assert not os.path.exists(tmp_path / "output" / "config.yaml")


def test_sizes_that_do_not_fit_the_model_name_the_keys(run_tool, small_run):
    outcome = run_tool("run_net", f"{small_run} DATA.TRAIN_CROP_SIZE 40 DATA.TEST_CROP_SIZE 40")
    one_error(outcome, "divisible by (2, 32, 32)", "DATA.TRAIN_CROP_SIZE", "(4, 32, 32)")


def test_videos_shorter_than_the_clip_are_used(run_tool, small_run):
    assert run_tool("run_net", f"{small_run} DATA.SAMPLING_RATE 30").status == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(run_tool, small_run):
    one_error(run_tool("run_net", f"{small_run} NUM_GPUS 1"), "NUM_GPUS must be 0")


def test_every_config_key_is_explained(run_tool):
    outcome = run_tool("run_net", "--help-config")
    assert outcome.status == 0
    assert "SOLVER.LAYER_DECAY" in outcome.out


def test_the_command_works_from_a_shell():
    command = [sys.executable, "tools/run_net.py", "--cfg", "configs/Demo/HIERA_MICRO.yaml", "A.B"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["stdout.log", "checkpoints"])
def test_parts_of_an_output_dir_that_cannot_be_written_are_named(
    run_tool, small_run, tmp_path, name
):
    (tmp_path / "output").mkdir()
    if name == "stdout.log":
        (tmp_path / "output" / name).mkdir()
    else:
        (tmp_path / "output" / name).touch()
    one_error(run_tool("run_net", small_run), "OUTPUT_DIR must be a folder", name)


def test_a_url_is_no_output_dir(run_tool, small_run):
    one_error(run_tool("run_net", f"{small_run} OUTPUT_DIR https://example.invalid/x"), "a URL")


def test_weights_are_read_from_a_url_and_a_dead_one_is_named(
    run_tool, small_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))  # where iopath keeps downloads
    (tmp_path / "served").mkdir()
    model = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8)
    torch.save(model.state_dict(), tmp_path / "served" / "weights.pyth")
    handler = partial(SilentHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        run = f"{small_run} TEST.CHECKPOINT_FILE_PATH {url}"
        good = run_tool("test_net", f"{run}/weights.pyth")
        gone = run_tool("test_net", f"{run}/none.pyth")
        server.shutdown()
    assert good.status == 0, good.err
    assert "8 of 8 videos evaluated" in good.out
    assert gone.status == 1
    assert gone.err.startswith("error: TEST.CHECKPOINT_FILE_PATH: 'http://")
    assert "404" in gone.err
    assert "by hand" in gone.err
    assert "Traceback" not in gone.err


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_modules_that_are_no_model_family_are_refused(run_tool, small_run):
    outcome = run_tool("run_net", f"{small_run} MODEL.ARCH token_order MODEL.MODEL_NAME invert")
    one_error(outcome, "MODEL.ARCH")


def test_pyslowfasts_command_line_is_taken_or_answered(run_tool, small_run):
    cfg, _, overrides = small_run.partition(".yaml ")
    wrong = run_tool("run_net", f"{cfg}.yaml --opts {overrides} NUM_GPUS -3")
    one_error(wrong, "NUM_GPUS")  # which was read behind --opts
    for option in ("--init_method tcp://localhost:9999", "--num_shards=2"):
        outcome = run_tool("run_net", f"{option} {small_run}")
        one_error(outcome, "here torchrun sets up the rendezvous")
