"""The docs as a site, and the page of ten minutes, whose commands are run."""

import os
import re
import subprocess
import sys

import pytest
import yaml

import hiera_video

from .doc_pages import ROOT, blocks


def test_the_site_leads_to_every_page():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = re.findall(r"[\w-]+\.md", str(nav))
    assert len(set(listed)) == len(listed)
    assert set(listed) == {page.name for page in (ROOT / "docs").glob("*.md")}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; a warning is an error."""
    for module in ("material", "mkdocstrings_handlers"):
        pytest.importorskip(module, reason=f"{module} is not installed (the extra 'docs')")
    folder = tmp_path_factory.mktemp("site")
    # With --quiet it would not count warnings.
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_is_made_of_nothing_from_elsewhere(site):
    pages = list(site.glob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text()
        # Links lead elsewhere; what a page is made of does not come from there.
        assert re.findall(r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//[^\s>]+", text) == []
        assert re.findall(r"<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+//[^>]+", text) == []


def test_the_api_reference_has_every_public_name(site):
    anchors = re.findall(r'<h\d id="hiera_video\.([\w.]+)"', (site / "api.html").read_text())
    shown = {anchor.split(".")[-1] for anchor in anchors}
    assert set(hiera_video.__all__) - {"__version__"} <= shown
    assert {"open_video", "load_config", "launch", "extract"} <= shown


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_ask_for_nothing(site, browser, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    grounds = set()
    for path in sorted(set(site.glob("*.html")) - {site / "404.html"}):  # for servers alone
        page.goto(path.as_uri())
        # A wide table or command scrolls in its frame, not with the page.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path.name
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    page.close()
    assert [url for url in asked if not url.startswith("file:")] == []
    (ground,) = grounds
    red = int(re.findall(r"\d+", ground)[0])
    assert (red < 64) == (scheme == "dark")


# The page's numbers, and those that are enough to see its commands work.
SHORTER = {
    "--num-train-per-class 40": "--num-train-per-class 5",
    "SOLVER.MAX_EPOCH 12": "SOLVER.MAX_EPOCH 1",
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform == "win32", reason="the page is for a shell")
def test_the_ten_minutes_run_as_they_are_written(tmp_path):
    for folder in ("tools", "configs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    texts = blocks(ROOT / "docs" / "own-dataset.md", "bash")
    # Hiera-B is for a GPU, and downloads weights.
    script = "\n".join(text for text in texts if "HIERA_B.yaml" not in text)
    script = script.replace(". .venv/bin/activate", "")
    for words, fewer in SHORTER.items():
        assert words in script
        script = script.replace(words, fewer)
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-e"], input=script, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Read class folders: train 32, val 8" in done.stdout
    assert "top-1 by views" in done.stdout
    assert re.search(r"my_videos/val/moves_up/00000.mp4\n +\w+ +[\d.]+ %", done.stdout)
    for name in ("report.html", "test_results.json", "test_scores.npz", "test_confusion.png"):
        assert (tmp_path / "output/mine" / name).is_file()
    assert (tmp_path / "labelled.mp4").is_file()
