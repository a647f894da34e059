"""tools/ablation.py: rounds on real models, resumed, redrawn, and what cannot be measured."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
import simplejson

from hiera_video.benchmark.ablation.measure import Job, measure
from hiera_video.benchmark.ablation.report import speeds, write_report
from hiera_video.benchmark.ablation.rows import Published, config_of, read_rows
from hiera_video.benchmark.ablation.run import Results
from hiera_video.utils.errors import UserError

HIERA = "hiera=configs/Demo/HIERA_MICRO.yaml"
SMALL = "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32"
QUICK = "--rounds 2 --seconds 0.01 --threads 1"


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_rows_are_measured_in_rounds_and_written_as_tables(run_tool, tmp_path):
    bad = tmp_path / "TOO_SMALL.yaml"
    bad.write_text("_BASE_: " + str(tmp_path.cwd() / "configs/Demo/HIERA_MICRO.yaml") + "\n")
    done = run_tool(
        "ablation",
        f"{HIERA} x3d={bad} --output {tmp_path} {QUICK} --what inference,train,mae {SMALL}",
    )
    assert done.status == 0, done.err
    results = results_of(tmp_path)
    assert list(results["costs"]) == ["hiera", "x3d"]
    for taken in results["rounds"]:
        assert taken["hiera"].keys() == {"inference", "train", "mae"}
        assert taken["x3d"].keys() == {"inference", "train"}  # no pretraining config beside it
    assert all(peak > 10**6 for peak in results["peaks"]["hiera"].values())
    table = (tmp_path / "table.md").read_text()
    assert table.startswith("|  | clip | M parameters | GFLOPs, counted | published | inference:")
    assert "| hiera | 4x32 | 1.2 |" in table
    assert "medians of 2 interleaved rounds" in table
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["hiera", "x3d"]
    assert len(simplejson.loads((tmp_path / "table.json").read_text())["rows"]) == 2
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")

    # A second call has nothing to do, one with more rounds does these, other settings are refused.
    again = run_tool(
        "ablation",
        f"{HIERA} x3d={bad} --output {tmp_path} {QUICK} --what inference,train,mae {SMALL}",
    )
    assert "round" not in again.out
    assert results_of(tmp_path) == results
    other = run_tool("ablation", f"{HIERA} --output {tmp_path} {QUICK} {SMALL}")
    assert other.status == 1
    assert "--output must be a folder without results of other settings" in other.err
    assert other.err.count("\n") == 1


def test_what_cannot_be_built_is_a_note_and_the_others_go_on(run_tool, tmp_path):
    wrong = tmp_path / "WRONG.yaml"
    wrong.write_text("MODEL:\n  ARCH: baselines\n  MODEL_NAME: x3d_xxl\n")
    line = f"{wrong} {HIERA} --output {tmp_path} {QUICK} --what inference {SMALL}"
    done = run_tool("ablation", line)
    assert done.status == 0, done.err
    table = (tmp_path / "table.md").read_text()
    assert "- WRONG: MODEL.MODEL_NAME must be a function of hiera_video.models.baselines" in table
    assert "relative to hiera" in table  # the first row that has figures
    alone = run_tool("ablation", f"{wrong} --output {tmp_path / 'alone'} {QUICK}")
    assert alone.status == 1
    assert alone.out.endswith("no row could be measured\n")


def test_the_largest_batch_that_fits_is_found_by_halving(run_tool, tmp_path):
    line = f"{HIERA} --output {tmp_path} --rounds 1 --seconds 0.01 --threads 1 --what train"
    done = run_tool("ablation", f"{line} --batch-size auto --memory-limit-gib 0.5")
    assert done.status == 0, done.err
    batch = results_of(tmp_path)["batches"]["hiera"]["train"]
    assert 1 <= batch < 64
    assert batch & (batch - 1) == 0
    too_small = Job(
        cfg=config_of("configs/Demo/HIERA_MICRO.yaml", ()),
        what="train",
        batch_size=2 * batch,
        device="cpu",
        bfloat16=False,
        threads=1,
        seconds=0.01,
        memory_limit_gib=0.5,
    )
    figure = measure(too_small)
    assert figure.out_of_memory
    assert figure.note == "not enough memory"


def test_a_run_that_is_stopped_goes_on(tmp_path):
    command = [
        *(sys.executable, "tools/ablation.py", HIERA, "--output", str(tmp_path)),
        *("--rounds", "3", "--seconds", "0.3", "--threads", "1", "--what", "inference,train"),
        *SMALL.split(),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while "round 1, hiera, train" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(60) in (0, 130)
    assert "stopped; the same command goes on" in rest
    assert (tmp_path / "table.md").exists()
    before = results_of(tmp_path)["rounds"][0]
    subprocess.run(command, check=True, capture_output=True)
    after = results_of(tmp_path)["rounds"]
    assert after[0] == before
    assert [taken["hiera"].keys() for taken in after] == [{"inference", "train"}] * 3


def test_ratios_are_taken_within_a_round(tmp_path):
    cost = {"model": "m", "clip": "8x64", "parameters": 10, "multiply_adds": 20, "note": ""}
    results = Results(
        made_with={"what": ["inference"], "batch_size": 1, "device": "cpu", "bfloat16": False},
        machine={"device": "a processor", "threads": "2", "torch": "2"},
        costs={"one": cost, "other": cost},
        batches={"one": {"inference": 1}, "other": {"inference": 1}},
        rounds=[
            {"one": {"inference": 1.0}, "other": {"inference": 0.5}},
            {"one": {"inference": 9.0}, "other": {"inference": 3.0}},  # a slow moment
            {"one": {"inference": 1.0}, "other": {"inference": 0.4}},
        ],
    )
    speed = speeds(results, "one")["other"]["inference"]
    assert speed.ratio == 2.5
    assert speed.ratios == (2.0, 2.5, 3.0)
    assert speed.clips_per_sec == 2.0
    write_report(results, str(tmp_path), {"m": Published(1.5, None, "a paper")}, "one")
    table = (tmp_path / "table.md").read_text()
    assert "2.50 (2.00 to 3.00)" in table
    assert "- one: a paper" in table


def test_a_table_is_drawn_again_from_its_results(run_tool, tmp_path):
    run_tool("ablation", f"{HIERA} --output {tmp_path} {QUICK} --what inference {SMALL}")
    again = tmp_path / "again"
    done = run_tool("ablation", f"--from {tmp_path / 'results.json'} --output {again}")
    assert done.status == 0, done.err
    assert (again / "table.md").read_text() == (tmp_path / "table.md").read_text()


def test_rows_are_named_and_paired():
    rows = read_rows(
        ["configs/Kinetics/HIERA_B.yaml", "configs/Kinetics/HIERA_B_MAE_PT.yaml", "a=b.yaml,c.yaml"]
    )
    assert [(r.name, r.fine_tune, r.pretrain) for r in rows] == [
        ("HIERA_B", "configs/Kinetics/HIERA_B.yaml", "configs/Kinetics/HIERA_B_MAE_PT.yaml"),
        ("a", "b.yaml", "c.yaml"),
    ]
    with pytest.raises(UserError, match="configs must have different names, got 'a' twice"):
        read_rows(["a=b.yaml", "a=c.yaml"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--output {}", "CONFIG must name at least one config"),
        (f"{HIERA} --output {{}} --reference x", "--reference must be a row (hiera), got 'x'"),
        (f"{HIERA} --output {{}} --published x.json", "--published must be a JSON file"),
        ("--from nothing.json --output {}", "'nothing.json' must be the results of an ablation"),
    ],
)
def test_bad_input_is_one_line(run_tool, tmp_path, words, message):
    done = run_tool("ablation", words.format(tmp_path))
    assert done.status == 1
    assert message in done.err
    assert done.err.count("\n") == 1
