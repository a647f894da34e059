"""A small campaign of hostile input, and tests that its checks detect what they look for."""

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parent / "campaign.py"


def run_campaign(*words):
    command = [sys.executable, str(CAMPAIGN), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["configs", "weights", "resumes", "exports", "lists", "shards"])
def test_hostile_input_ends_in_a_result_or_in_one_error(kind):
    ended = run_campaign(kind, "--cases", 40, "--seed", 7)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{kind}, seed 7: 40 cases" in ended.stdout


# Each case does one thing that the campaign must detect.
FAULTS = """
import os, subprocess, sys
sys.path.insert(0, {folder!r})
import campaign

def faulty(rng, common, here):
    return {fault}

campaign.KINDS = {{"configs": faulty}}
campaign.make_common = lambda folder: folder.mkdir(parents=True)
if __name__ == "__main__":
    sys.argv = ["campaign.py", "configs", "--cases", "1", "--workers", "1", "--deadline-sec", "5"]
    sys.exit(campaign.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        ("result", "lambda: None"),
        ("bug", "lambda: 1 / 0"),
        ("died", "lambda: os.abort()"),
        ("hung", "lambda: __import__('time').sleep(60)"),
        ("outside", "lambda: open({outside!r}, 'w').close()"),
        ("outside", "lambda: os.mkdir({outside!r})"),
        ("outside", "lambda: subprocess.run(['true'])"),
    ],
)
def test_the_judge_sees_every_fault(tmp_path, outcome, fault):
    fault = fault.format(outside=str(tmp_path / "outside"))
    script = tmp_path / "faulty.py"
    script.write_text(FAULTS.format(folder=str(CAMPAIGN.parent), fault=fault))
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300
    )
    assert f"     1 {outcome}: " in ended.stdout, ended.stdout + ended.stderr
    assert ended.returncode == (0 if outcome == "result" else 1)
