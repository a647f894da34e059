import os
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time

import pytest

from hiera_video.data.datasets import kinetics
from hiera_video.data.prepare.journal import JOURNAL

TOOL = [sys.executable, "tools/prepare_videos.py"]


@pytest.fixture(scope="module")
def folder(videos, tmp_path_factory):
    """Ten good videos in two classes, in a path with spaces and letters that are not ASCII."""
    root = tmp_path_factory.mktemp("set, ä")
    for number in range(10):
        target = root / f"class {number % 2}" / f"{number} ü.mp4"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(videos["h264_b.mp4"], target)
    return root


def start(*words, **options):
    # A group of its own, as a terminal gives every command, for Ctrl-C goes to the group.
    return subprocess.Popen(
        [*TOOL, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def end(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def num_finished(output):
    path = output / JOURNAL
    return path.read_text().count("\n") if path.exists() else 0


def wait_for(condition, *, timeout_sec=60):
    deadline = time.monotonic() + timeout_sec
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def group_is_gone(process):
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def half_files(output):
    return list(output.rglob(".*.part"))


def test_a_run_goes_on_after_ctrl_c_and_after_a_kill(folder, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    words = (folder, output, "--workers", 1, "--preset", "veryslow", "--val-share", 0.4)

    process = start(*words)
    wait_for(lambda: num_finished(output) >= 1)
    os.killpg(process.pid, signal.SIGINT)
    status, _out, err = end(process)
    assert (status, "The same command goes on from here" in err) == (130, True)
    assert "Traceback" not in err
    assert half_files(output) == []
    wait_for(lambda: group_is_gone(process))
    assert not (output / "train.csv").exists()

    before = num_finished(output)
    assert 1 <= before < 10
    process = start(*words)
    wait_for(lambda: num_finished(output) > before)
    process.kill()
    end(process)
    wait_for(lambda: group_is_gone(process))
    before = num_finished(output)
    assert before < 10

    monkeypatch.setattr(sys, "argv", [TOOL[1], *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(TOOL[1], run_name="__main__")
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Read class folders: train 6, val 4"
    assert re.match(rf"10 videos ready \({before} from before\); ", lines[1])
    assert lines[1].endswith("0 failed; in " + str(output) + ": train.csv 6, val.csv 4, test.csv 4")
    assert half_files(output) == []
    for split, number in (("train", 6), ("val", 4), ("test", 4)):
        records = kinetics.read_index(str(output), split, num_classes=2)
        assert len(records) == number
        assert all(os.path.getsize(record.path) for record in records)


def test_a_full_disk_ends_the_run_and_blames_no_video(folder, tmp_path):
    # What a test can set is the largest size of a file; writes then end as on a full disk.
    limit = (resource.RLIMIT_FSIZE, (2000, 2000))
    process = start(folder, tmp_path, "--workers", 1, preexec_fn=lambda: resource.setrlimit(*limit))
    status, _out, err = end(process)
    assert status == 1
    assert "cannot be written: File too large" in err
    assert "What is finished is kept. Try the same command again" in err
    assert "Traceback" not in err
    assert half_files(tmp_path) == []
    assert not (tmp_path / "failed.csv").exists()


def test_the_exit_status_tells_of_many_failures(run_tool, videos, bad_videos, tmp_path):
    (tmp_path / "set" / "k").mkdir(parents=True)
    shutil.copy(bad_videos["empty.mp4"], tmp_path / "set" / "k")
    line = f"{tmp_path}/set {tmp_path}/out --workers 1"
    outcome = run_tool("prepare_videos", line)
    assert outcome.status == 1
    assert "error: 100.0 % of the videos failed, --max-failed is 0.1" in outcome.err
    assert f"0 videos ready; 1 failed, see {tmp_path}/out/failed.csv" in outcome.out
    shutil.copy(videos["one_frame.mp4"], tmp_path / "set" / "k")
    assert run_tool("prepare_videos", line).status == 1
    assert run_tool("prepare_videos", f"{line} --max-failed 0.5").status == 0


def test_lists_alone(run_tool, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "set")
    outcome = run_tool("prepare_videos", f"{tmp_path}/set {tmp_path}/set --lists-only")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines()[1] == (
        f"10 videos ready; 0 failed; in {tmp_path}/set: train.csv 10"
    )
    assert len(kinetics.read_index(f"{tmp_path}/set", "train")) == 10


def test_user_errors_are_one_line(run_tool, folder, tmp_path):
    for words, message in (
        (f"{tmp_path}/gone {tmp_path}/out", "SOURCE must be a folder, a csv or a json file"),
        (f"{tmp_path} {tmp_path}/out", "SOURCE must hold videos"),
        (f"{tmp_path} {tmp_path}/out --max-failed 2", "--max-failed must be in 0..1"),
    ):
        outcome = run_tool("prepare_videos", words)
        assert outcome.status == 1
        assert outcome.err.startswith(f"error: {message}")
        assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_names_every_form_of_source(run_tool):
    outcome = run_tool("prepare_videos", "--help")
    assert outcome.status == 0
    for word in ("class folders", "youtube_id", "Something-Something", "--val-share"):
        assert word in outcome.out
