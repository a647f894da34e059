"""The laws of docs/architecture.md that a program can check."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hiera_video"
FILES = sorted(PACKAGE.rglob("*.py"))
# A file may import from its own room and the floors below; rooms of a floor are blind to others.
FLOORS = {
    "utils": 0,
    "config": 1,
    "checkpoints": 1,
    "data": 2,
    "models": 2,
    "solver": 2,
    "metrics": 2,
    "engine": 3,
}
MAY_READ_CFG = ("build.py",)
MAX_FILE, MAX_FUNCTION = 400, 80


def room_of(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaks_floors(source, room):
    wrong = []
    for name in imports_of(ast.parse(source)):
        parts = name.split(".")
        if parts[0] == "tools":
            wrong.append(name)
        if parts[0] != "hiera_video" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        if parts[1] != room and FLOORS[parts[1]] >= FLOORS[room]:
            wrong.append(name)
    return wrong


def reads_cfg(source):
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Name) and node.id == "cfg")
        or (isinstance(node, ast.arg) and node.arg == "cfg")
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    if room_of(path):
        assert breaks_floors(path.read_text(), room_of(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_cfg_is_read_only_where_it_may_be(path):
    if room_of(path) not in ("config", "engine") and path.name not in MAY_READ_CFG:
        assert reads_cfg(path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_keep_to_their_caps(path):
    source = path.read_text()
    assert source.count("\n") <= MAX_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION, node.name


def test_the_checks_find_what_they_look_for():
    assert breaks_floors("from hiera_video.engine.train import train", "data")
    assert breaks_floors("import hiera_video.models.hiera", "data")
    assert not breaks_floors("from hiera_video.utils import io", "data")
    assert reads_cfg("def f(cfg): return cfg.A")
    assert not reads_cfg("def f(config): return config.A")


def test_config_room_does_without_torch():
    for path in (PACKAGE / "config").glob("*.py"):
        assert not any(
            name.split(".")[0] == "torch" for name in imports_of(ast.parse(path.read_text()))
        )


def test_the_command_is_four_hops_from_the_loss():
    """`run_net.main -> launch -> train -> train_epoch -> task.step`, each calling the next."""
    hops = [
        ("tools/run_net.py", "main", "launch("),
        ("hiera_video/engine/launch.py", "launch", "train("),
        ("hiera_video/engine/train.py", "train", "train_epoch("),
        ("hiera_video/engine/train.py", "train_epoch", "task.step("),
    ]
    for file, function, calls in hops:
        source = (ROOT / file).read_text()
        (node,) = [
            n
            for n in ast.parse(source).body
            if isinstance(n, ast.FunctionDef) and n.name == function
        ]
        assert calls in ast.get_source_segment(source, node)
