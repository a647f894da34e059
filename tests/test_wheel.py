"""The wheel that setuptools builds from pyproject.toml holds all that the package needs."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INPUTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: a build in the checkout would reuse files of an older one."""
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    for name in INPUTS:
        shutil.copy(ROOT / name, folder)
    for name in ("hiera_video", "configs"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    command = [sys.executable, "-m", "pip", "wheel", *options]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_package(wheel):
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hiera_video").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"hiera_video/py.typed", "hiera_video/serve/page/page.js"} < ours
    assert ours <= set(wheel.namelist())


@pytest.mark.slow
def test_a_wheel_has_the_version_of_the_package(wheel):
    from hiera_video.version import __version__

    assert f"hiera_video-{__version__}.dist-info/METADATA" in wheel.namelist()
