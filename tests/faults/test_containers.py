"""Compare a few files of containers.py; the full run takes minutes."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "containers.py"


def run(*words: str) -> str:
    backends = [n for n in ("torchcodec", "decord") if importlib.util.find_spec(n)]
    words = (*words, "--backends", "pyav", *backends, "auto")
    found = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command")
def test_some_kinds_of_files_are_shown_as_ffmpeg_shows_them():
    assert "| all |" in run("--every", "25")
