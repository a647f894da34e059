"""tools/sweep.py: real chains of pretraining, fine-tuning and test, interrupted and shown."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hiera_video.sweeps.plan import read_sweep
from hiera_video.sweeps.report import points, table
from hiera_video.utils.errors import UserError

SMALL = (
    "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 TRAIN.BATCH_SIZE 8 "
    "DATA_LOADER.NUM_WORKERS 0 TENSORBOARD.ENABLE False TRAIN.CHECKPOINT_PERIOD 1 "
    "TEST.NUM_TEMPORAL_CLIPS 1 TEST.VIEWS_TABLE False TRAIN.EVAL_PERIOD 100"
)
SWEEP = {
    "about": "What pretraining gains",
    "fine_tune": "configs/Demo/HIERA_MICRO.yaml",
    "pretrain": "configs/Demo/HIERA_MICRO_MAE_PT.yaml",
    "vary": "SOLVER.MAX_EPOCH",
    "stage": "fine_tune",
    "values": [1, 2],
    "starts": ["scratch", "pretrained"],
    "seeds": [0],
}


@pytest.fixture
def sweep_file(tmp_path):
    """Return a function that writes a sweep with some keys changed (None: left out)."""

    def write(**changes):
        path = tmp_path / "lengths.yaml"
        file = {key: value for key, value in {**SWEEP, **changes}.items() if value is not None}
        path.write_text(yaml.safe_dump(file))
        return str(path)

    return write


@pytest.fixture
def pretrain_file(tmp_path):
    """A pretraining config of one epoch, so that the length of fine-tuning alone varies."""
    path = tmp_path / "PT.yaml"
    here = tmp_path.cwd() / SWEEP["pretrain"]
    path.write_text(f"_BASE_: {here}\nSOLVER:\n  MAX_EPOCH: 1\n  WARMUP_EPOCHS: 0\n")
    return str(path)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_chains_run_once_and_become_a_table_and_a_picture(
    run_tool, sweep_file, pretrain_file, small_set, tmp_path
):
    path = sweep_file(pretrain=pretrain_file)
    results = tmp_path / "sweeps.jsonl"
    line = (
        f"{path} --results {results} --output {tmp_path / 'runs'} "
        f"{SMALL} DATA.PATH_TO_DATA_DIR {small_set} SOLVER.WARMUP_EPOCHS 0"
    )
    done = run_tool("sweep", line)
    assert done.status == 0, done.err
    found = lines_of(results)
    assert [one["name"] for one in found] == [
        "lengths/1/scratch/seed0",
        "lengths/1/pretrained/seed0",
        "lengths/2/scratch/seed0",
        "lengths/2/pretrained/seed0",
    ]
    assert all(0 <= one["top1"] <= one["top5"] <= 100 for one in found)
    assert [one["pretrain_epochs"] for one in found] == [0, 1, 0, 1]
    # Both chains of pretraining are one run: its seconds are the same.
    assert found[1]["pretrain_sec"] == found[3]["pretrain_sec"] > 0
    assert len(list((tmp_path / "runs").glob("pretrain_*"))) == 1
    assert len(list((tmp_path / "runs").glob("fine_tune_*"))) == 4
    assert "| lengths | 2 | pretrained |" in done.out

    again = run_tool("sweep", line)
    assert "==" not in again.out
    assert lines_of(results) == found
    picture = tmp_path / "lengths.png"
    shown = run_tool("sweep", f"{line} --list --table --plot {picture}")
    assert "4 done, 0 to come" in shown.out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_chain_that_is_killed_goes_on_from_its_checkpoints(sweep_file, small_set, tmp_path):
    results = tmp_path / "sweeps.jsonl"
    command = [
        *(sys.executable, "tools/sweep.py", sweep_file(values=[8], starts=["scratch"])),
        *("--results", str(results), "--output", str(tmp_path / "runs"), *SMALL.split()),
        *("DATA.PATH_TO_DATA_DIR", str(small_set), "LOG_PERIOD", "1"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = tmp_path / "runs"
    while not list(folder.glob("fine_tune_*/checkpoints/checkpoint_epoch_0000[1-7].pyth")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not results.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resum" in done.stdout.lower()
    (line,) = lines_of(results)
    assert line["epochs"] == 8


def test_the_budget_ends_before_the_next_run(run_tool, sweep_file, small_set, tmp_path):
    line = (
        f"{sweep_file(starts=['scratch'])} --results {tmp_path / 'r.jsonl'} "
        f"--output {tmp_path / 'runs'} --budget-min 0.0001 {SMALL} SOLVER.WARMUP_EPOCHS 0 "
        f"DATA.PATH_TO_DATA_DIR {small_set}"
    )
    done = run_tool("sweep", line)
    assert done.status == 75
    assert "--budget-min is used up, 1 runs are left" in done.out
    assert run_tool("sweep", line.replace("0.0001", "5")).status == 0
    assert len(lines_of(tmp_path / "r.jsonl")) == 2


def test_the_value_reaches_the_stages_it_belongs_to(sweep_file):
    def chains(**changes):
        return read_sweep(sweep_file(**changes), output="out", overrides=SMALL.split()).chains

    (ratio,) = chains(vary="MASK.RATIO", values=[0.75], stage="pretrain", starts=["pretrained"])
    assert ratio.pretrain.MASK.RATIO == 0.75
    assert ratio.fine_tune.MASK.RATIO == 0.9
    assert ratio.fine_tune.TRAIN.CHECKPOINT_FILE_PATH.startswith(ratio.pretrain.OUTPUT_DIR)
    assert ratio.test.TEST.CHECKPOINT_FILE_PATH.startswith(ratio.fine_tune.OUTPUT_DIR)
    one, two = chains(
        vary="TEST.NUM_TEMPORAL_CLIPS", values=[1, 3], stage="test", starts=["pretrained"]
    )
    assert one.fine_tune == two.fine_tune
    assert (one.test.TEST.NUM_TEMPORAL_CLIPS, two.test.TEST.NUM_TEMPORAL_CLIPS) == (1, 3)
    (size,) = chains(
        vary="MODEL.MODEL_NAME", values=["hiera_base_16x224"], stage="both", starts=["pretrained"]
    )
    assert size.pretrain.MODEL.MODEL_NAME == "mae_hiera_base_16x224"
    first, second = chains(starts=["pretrained"])
    assert first.pretrain == second.pretrain
    assert first.fine_tune.OUTPUT_DIR != second.fine_tune.OUTPUT_DIR


def test_a_table_has_mean_and_spread_over_seeds():
    line = {"sweep": "s", "value": "1", "start": "scratch", "train_sec": 10.0, "gflops": 0.5}
    lines = [{**line, "top1": top1} for top1 in (50.0, 60.0)]
    (point,) = points(lines)
    assert point.mean == 55
    assert point.spread == pytest.approx(7.0711, abs=1e-4)
    assert "| s | 1 | scratch | 55.0 ± 7.1 | 2 | 10 | 0.5 |" in table(lines)


SHIPPED = sorted(path.stem for path in Path("configs/Sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED)
def test_shipped_sweeps_can_be_read(path):
    sweep = read_sweep(f"configs/Sweeps/{path}.yaml", output="out")
    assert sweep.about
    assert len({chain.name for chain in sweep.chains}) == len(sweep.chains) >= 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vary": None}, "a sweep must have the keys"),
        ({"stage": "training"}, "stage must be one of pretrain, fine_tune, both, test"),
        ({"starts": ["cold"]}, "starts some of scratch, pretrained"),
        ({"values": 3}, "values a list"),
        ({"vary": "SOLVER.EPOCHS"}, "lengths, 1: .*SOLVER.EPOCHS"),
        ({"vary": "MASK.RATIO", "stage": "pretrain", "values": [2.0, 3.0]}, "got 2(.|\n)*got 3"),
    ],
)
def test_a_wrong_sweep_is_told_before_anything_runs(sweep_file, changes, message):
    with pytest.raises(UserError, match=message):
        read_sweep(sweep_file(**changes), output="out", overrides=SMALL.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "SWEEP must name at least one file"),
        ("nothing.yaml", "SWEEP must be a YAML file, got 'nothing.yaml'"),
        ("configs/Sweeps/views.yaml --only xyz", "--only must be part of a run's name, got 'xyz'"),
        ("configs/Sweeps/views.yaml --seeds a", "--seeds must be numbers as in 0,1,2, got 'a'"),
    ],
)
def test_bad_input_is_one_line(run_tool, words, message):
    done = run_tool("sweep", words)
    assert done.status == 1
    assert message in done.err
    assert done.err.count("\n") == 1
