"""A small campaign of killed runs; one kill needs two runs, and takes a minute in full."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kills.py"


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_killed_runs_end_with_the_bits_of_one_that_nobody_killed(num_processes):
    words = ["--kills", "3", "--processes", str(num_processes), "--seed", "5"]
    run = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 of 3 killed runs ended with the bits of the one nobody killed" in run.stdout
