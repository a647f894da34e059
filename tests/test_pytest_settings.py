"""What pyproject.toml says to pytest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("part", ["hiera_video", "hiera_video.engine", "hiera_video.models.load"])
def test_the_coverage_of_a_part_of_the_package_can_be_measured(tmp_path, part):
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--cov={part}", "tests/models/test_load.py"],
        cwd=ROOT,
        env={**os.environ, "COVERAGE_FILE": str(tmp_path / "coverage")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
