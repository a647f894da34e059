"""A small run over damaged files; it needs the decoders, and the full run takes minutes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.slow
def test_damaged_files_end_in_frames_or_in_one_error():
    backends = [n for n in ("torchcodec", "decord") if importlib.util.find_spec(n)]
    words = ["--files", "112", "--seed", "7", "--backends", "pyav", *backends, "auto"]
    run = subprocess.run(
        [sys.executable, str(FOLDER / "fuzz.py"), *words], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for line in run.stdout.splitlines():
        if line.startswith("| wrong"):
            pyav, *_, auto = (int(cell) for cell in line.strip("| ").split("|")[1:])
            assert pyav == auto == 0
            break
    else:
        pytest.fail(f"no line of wrong frames in:\n{run.stdout}")


@pytest.mark.slow
def test_a_damaged_file_can_be_made_again(tmp_path):
    made = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        words = ["--only", "31", "--seed", "3", "--backends", "pyav", "--keep", str(folder)]
        subprocess.run([sys.executable, str(FOLDER / "fuzz.py"), *words], check=True)
        (path,) = folder.glob("00031 *")
        made.append(path.read_bytes())
    assert made[0] == made[1]
