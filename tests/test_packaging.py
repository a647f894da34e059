"""The wheel that setuptools builds, and the files that describe the project to others."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from hiera_video.version import __version__

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
    assert f"hiera_video-{__version__}.dist-info/METADATA" in wheel.namelist()


@pytest.mark.slow
def test_a_wheel_holds_the_configs(wheel):
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"hiera_video/{path}" for path in ours} <= set(wheel.namelist())


@pytest.mark.slow
def test_an_installed_wheel_has_the_command_and_finds_the_configs(wheel, tmp_path):
    """From another folder, without the clone."""
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(target), wheel.filename]
    subprocess.run([sys.executable, "-m", "pip", "install", *options], check=True)
    words = ["flops", "--cfg", "Demo/HIERA_MICRO.yaml", "--format", "markdown"]
    ran = subprocess.run(
        [sys.executable, target / "bin" / "hiera-video", *words],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "| hiera_micro_8x64 | Demo/HIERA_MICRO.yaml |" in ran.stdout
    shown = "import hiera_video.config.shipped as s; print(s._folder())"
    ran = subprocess.run(
        [sys.executable, "-c", shown],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == str(target / "hiera_video" / "configs")


def test_changelog_and_citation_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    released = f"## [{__version__}] - {citation['date-released']}"
    assert released in (ROOT / "CHANGELOG.md").read_text().splitlines()


def test_the_changelog_names_modules_that_exist():
    rows = re.findall(r"^\| .* \| (.*) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    names = re.findall(r"`(hiera_video[\w.]*)`", " ".join(rows))
    assert len(names) > 10
    assert [name for name in names if importlib.util.find_spec(name) is None] == []
