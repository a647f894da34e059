"""docs/reading.md: walks as short as promised, whose files lead on from one another."""

import re

import pytest

from hiera_video.config.schema import key_specs

from .doc_pages import ROOT

PAGE = (ROOT / "docs/reading.md").read_text()
LIMITS = {
    "A training step": 16,
    "A training clip": 18,
    "The multi-view test": 12,
    "Predict": 12,
    "A checkpoint": 12,
}


def walks(page):
    """Return, for each walk, the number that its title promises and its (file, text) in order."""
    sections = re.findall(
        r"^## ([^\n:]+): (\d+) files\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL
    )
    return {
        title: (int(number), re.findall(r"^\d+\. `([^`]+)`(.*)$", body, re.MULTILINE))
        for title, number, body in sections
    }


def path_of(name):
    return ROOT / name if name.startswith("tools/") else ROOT / "hiera_video" / name


def imports(source, name):
    """Say whether a file's source imports the module of another, given as `data/order.py`."""
    module = "hiera_video." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, last = module.rpartition(".")
    from_package = rf"from {re.escape(package)} import [^\n]*\b{last}\b"
    return re.search(rf"{re.escape(module)}\b|{from_package}", source) is not None


def unled(steps):
    """Return the files that none before them imports and that no config key names."""
    names = [name for name, _ in steps]
    sources = [path_of(name).read_text() for name in names]
    return [
        name
        for place, (name, text) in enumerate(steps)
        if place
        and not any(imports(source, name) for source in sources[:place])
        and not any(f"{key} names it" in text for key in key_specs())
    ]


@pytest.mark.parametrize("title", LIMITS)
def test_a_walk_is_as_short_as_promised(title):
    promised, steps = walks(PAGE)[title]
    assert len(steps) == promised <= LIMITS[title]
    assert unled(steps) == []


def test_the_page_has_five_walks():
    assert list(walks(PAGE)) == list(LIMITS)


def test_the_checks_find_what_they_look_for():
    page = "## A: 2 files\n\n1. `data/order.py` a.\n2. `serve/app.py` b.\n"
    promised, steps = walks(page)["A"]
    assert (promised, len(steps)) == (2, 2)
    assert unled(steps) == ["serve/app.py"]
