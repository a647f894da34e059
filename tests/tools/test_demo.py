import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import simplejson
import torch

from hiera_video.commands import demo as demo_command
from hiera_video.engine.signals import REQUEUE_STATUS
from hiera_video.utils.errors import UserError
from hiera_video.utils.machine import clock

SMALL_DEMO = (
    "SOLVER.MAX_EPOCH 1 TRAIN.BATCH_SIZE 8 DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 64 "
    "DATA.TEST_CROP_SIZE 64 DATA_LOADER.NUM_WORKERS 0 TENSORBOARD.ENABLE False"
)
STEPS = [
    *("make data", "fine-tune, from scratch", "test, from scratch"),
    *("pretrain", "fine-tune, pretrained", "test, pretrained", "picture", "report"),
]


@pytest.fixture(scope="module")
def demo_tool():
    """The functions of the demo."""
    return vars(demo_command)


def mark_data_as_made(demo_tool, out, words):
    # The tool that makes the data would refuse another size than its own.
    out.mkdir()
    settings = demo_tool["parse_args"](words.split()).configs_yaml()
    (out / "demo.json").write_text(simplejson.dumps({"config": settings, "seconds": {STEPS[0]: 1}}))


def state_of(path):
    return torch.load(path, weights_only=True)["model_state"]


def test_demo_runs_the_commands_once_and_prints_its_table(run_tool, demo_tool, small_set, tmp_path):
    out = tmp_path / "output"
    words = f"{SMALL_DEMO} DATA.PATH_TO_DATA_DIR {small_set} OUTPUT_DIR {out}"
    mark_data_as_made(demo_tool, out, words)
    first = run_tool("demo", words)
    assert first.status == 0, first.err
    assert "make data: done before" in first.out
    assert "$ python tools/run_net.py --cfg configs/Demo/MOTIONS_V1_MAE_PT.yaml" in first.out
    assert first.out.count("$ python tools/run_net.py --cfg configs/Demo/MOTIONS_V1.yaml") == 2
    check_tables(first.out)
    check_arms(out)
    check_forecasts(first.out)
    assert list((out / "pictures").rglob("*.png"))
    assert f"Report, for any browser: {out / 'report.html'}" in first.out
    assert "from_scratch" in (out / "report.html").read_text()
    assert list(json.loads((out / "demo.json").read_text())["seconds"]) == STEPS

    second = run_tool("demo", words)
    assert "$ python" not in second.out
    assert tables_in(second.out) == tables_in(first.out)[1:]


def tables_in(out):
    """The tables of an output, in order, each a dict from the first cell to the others."""
    tables = []
    for line in out.splitlines():
        if line.startswith("|"):
            first, *cells = (cell.strip() for cell in line[1:-1].split("|"))
            if not first:
                tables.append({})
            tables[-1][first] = cells
    return tables


def check_tables(out):
    """The first table stands before the pretraining begins, the second compares the two."""
    before, _, after = out.partition("MAE_PT.yaml")
    ((first,), (second,)) = tables_in(before), tables_in(after)
    assert first[""] == ["from scratch"]
    assert second[""] == ["from scratch", "pretrained"]
    for name, cells in first.items():
        assert second[name][:1] == cells
    assert second["chance, of 8 classes"] == ["12.5 %", "12.5 %"]
    assert second["videos to test on"] == ["8 of 8", "8 of 8"]
    for views in ("single view (1x1)", "multi-view (5x1)"):
        assert all(cell.endswith(" %") for cell in second[f"top-1, {views}"])
    assert second["seconds to pretrain"][0] == "-"


def check_forecasts(out):
    told = re.findall(r"Step (\d) of 8, (.+): about (\S+)\. All steps left: about (\S+)\.", out)
    assert [name for _, name, *_ in told] == STEPS[1:]
    assert [int(number) for number, *_ in told] == list(range(2, 9))
    assert told[-1][2] == told[-1][3]  # nothing is left after the last


def check_arms(out):
    """The two fine-tunings differ in the weights they start from, and in nothing else."""
    logs = [(out / arm / "stdout.log").read_text() for arm in ("fine_tuned", "from_scratch")]
    checkpoint = out / "pretrained" / "checkpoints" / "checkpoint_epoch_00001.pyth"
    assert f"started from {checkpoint}" in logs[0]
    assert "started from" not in logs[1]
    assert any(name.startswith("decoder_") for name in state_of(checkpoint))
    configs = [
        (out / arm / "config.yaml").read_text().replace(str(out / arm), "OUT").splitlines()
        for arm in ("fine_tuned", "from_scratch")
    ]
    different = [(one, two) for one, two in zip(*configs, strict=True) if one.split("#")[0] != two]
    assert len(different) == 1
    assert "CHECKPOINT_FILE_PATH" in different[0][0]


def test_demo_of_other_settings_is_not_mixed_with_an_earlier_one(
    run_tool, demo_tool, small_set, tmp_path
):
    out = tmp_path / "output"
    words = f"{SMALL_DEMO} DATA.PATH_TO_DATA_DIR {small_set} OUTPUT_DIR {out}"
    mark_data_as_made(demo_tool, out, words)
    for more in ("SOLVER.MAX_EPOCH 2", "--pretrain MASK.RATIO 0.5", "--fine-tune RNG_SEED 4"):
        outcome = run_tool("demo", f"{words} {more}")
        assert outcome.status == 1
        assert "holds a demo of other settings" in outcome.err


def test_a_folder_that_cannot_be_written_to_is_told_before_any_step(run_tool, tmp_path):
    (tmp_path / "file").touch()
    words = f"DATA.PATH_TO_DATA_DIR {tmp_path / 'data'} OUTPUT_DIR {tmp_path / 'file' / 'output'}"
    outcome = run_tool("demo", words)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("error: OUTPUT_DIR: ")
    assert not (tmp_path / "data").exists()


def test_overrides_go_to_the_steps_they_are_meant_for(demo_tool):
    words = "RNG_SEED 3 --pretrain SOLVER.MAX_EPOCH 7 --fine-tune SOLVER.MAX_EPOCH 2"
    demo = demo_tool["parse_args"](words.split())
    assert (demo.pretrain.RNG_SEED, demo.fine_tune.RNG_SEED) == (3, 3)
    assert (demo.pretrain.SOLVER.MAX_EPOCH, demo.fine_tune.SOLVER.MAX_EPOCH) == (7, 2)
    commands = demo_tool["steps_of"](demo)
    assert list(commands) == STEPS[:-2]
    for step, command in commands.items():
        if step != "make data":
            assert "RNG_SEED 3" in " ".join(command)
            assert ("SOLVER.MAX_EPOCH 7" in " ".join(command)) == (step == "pretrain")
            assert ("SOLVER.MAX_EPOCH 2" in " ".join(command)) == (step != "pretrain")


def test_a_wrong_override_stops_the_demo_before_its_first_step(run_tool, tmp_path):
    outcome = run_tool("demo", f"OUTPUT_DIR {tmp_path / 'output'} --pretrain SOLVER.MAX_EPOCHS 1")
    assert outcome.status == 1
    assert "SOLVER.MAX_EPOCH" in outcome.err
    assert not (tmp_path / "output").exists()


def test_both_configs_prepare_clips_in_the_same_way(demo_tool):
    demo = demo_tool["parse_args"]([])
    assert demo.pretrain.DATA == demo.fine_tune.DATA
    assert f"mae_{demo.fine_tune.MODEL.MODEL_NAME}" == demo.pretrain.MODEL.MODEL_NAME


def test_the_forecast_follows_what_was_measured(demo_tool, monkeypatch):
    demo = demo_tool["parse_args"](["--pretrain", "SOLVER.MAX_EPOCH", "1"])
    whole = demo_tool["REFERENCE_EPOCHS"]["pretrain"]
    expected = {**demo_tool["REFERENCE_SEC"]}
    expected["pretrain"] /= whole
    twice = 2 * demo_tool["REFERENCE_PROBE_SEC"]
    monkeypatch.setattr(demo_command, "probe_sec", lambda cfg: twice)
    forecast = demo_tool["Forecast"](demo)
    assert forecast.slower_than_reference({}) == 2
    # The data may be there already, in no time.
    assert forecast.slower_than_reference({"make data": 0.1}) == 2
    measured = {"make data": 0.1, STEPS[1]: 3 * expected[STEPS[1]]}
    assert forecast.slower_than_reference(measured) == pytest.approx(3)
    left = 3 * sum(expected[step] for step in STEPS[2:])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    line = forecast.line("test, from scratch", measured)
    assert line.endswith(f"All steps left: about {clock(left)}.")
    assert f"about {clock(3 * expected['test, from scratch'])}. All" in line

    measured[STEPS[1]] *= 2
    assert forecast.line("test, from scratch", measured).endswith("again with OMP_NUM_THREADS=1.")


def test_a_signal_to_the_demo_alone_ends_its_training_which_goes_on_later(
    demo_tool, small_set, tmp_path
):
    out = tmp_path / "output"
    words = f"{SMALL_DEMO} SOLVER.MAX_EPOCH 500 DATA.PATH_TO_DATA_DIR {small_set} OUTPUT_DIR {out}"
    mark_data_as_made(demo_tool, out, words)
    demo = subprocess.Popen(
        [sys.executable, "tools/demo.py", *words.split()],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    log = out / "from_scratch" / "stdout.log"
    end = time.monotonic() + 120
    while not (log.exists() and "epoch 2/500" in log.read_text()):
        assert demo.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    demo.send_signal(signal.SIGTERM)
    said, _ = demo.communicate(timeout=60)  # until the training has closed its output as well
    assert demo.returncode == REQUEUE_STATUS
    assert said.endswith("the demo stopped; the next call goes on\n")
    assert "stopped by SIGTERM; saved after" in log.read_text()


def test_the_probe_takes_time(demo_tool):
    assert 0 < demo_tool["probe_sec"](demo_tool["parse_args"]([]).fine_tune) < 60


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', '{"config": ""}'])
def test_a_damaged_record_is_named(demo_tool, tmp_path, text):
    path = tmp_path / "demo.json"
    path.write_text(text)
    with pytest.raises(UserError, match="demo.json is damaged. Try removing it"):
        demo_tool["read_record"](str(path), "")
