"""The laws of docs/architecture.md that a program can check."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from .house import FLOORS as ROOMS
from .house import PAGE, modules_of, picture, written

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hiera_video"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = {room: number for number, floor in enumerate(ROOMS) for room in floor} | {"version": 0}
READ_CFG = (
    *("config", "engine", "inference", "flops", "export", "visualize", "benchmark", "sweeps"),
    *("report", "commands"),
)
MAY_READ_CFG = ("build.py",)
USE_ENGINE = ("engine", "benchmark", "sweeps", "commands")
# Folders of tests/ that belong to no room: see CONTRIBUTING.md.
OTHER_TESTS = {"distributed", "faults", "golden", "tools"}
MAX_FILE, MAX_FUNCTION = 400, 80
MAX_TOOL = 30
# It names the class that torch.load may unpickle: the arguments of another trainer's script.
USE_ARGPARSE = ("torch_files.py",)
MAX_MODULES, MAX_PREFIX, MAX_ENGINE = 20, 3, 26
FOLDERS = sorted({path.parent for path in FILES})


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
    if room_of(path) not in READ_CFG and path.name not in MAY_READ_CFG:
        assert reads_cfg(path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_keep_to_their_caps(path):
    source = path.read_text()
    assert source.count("\n") <= MAX_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION, node.name


def crowded(names):
    """Say what a folder of these modules should be split by: its size, or prefixes of files."""
    found = ["size"] if len(names) > MAX_MODULES else []
    prefixes = Counter(name.lstrip("_").split("_")[0] for name in names if not name.startswith("_"))
    return found + [prefix for prefix, count in prefixes.items() if count > MAX_PREFIX]


def circle_in(edges):
    """Return a list of modules that import one another in a ring; [] if there is none."""
    done = set()

    def walk(name, way):
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in edges.get(name, ()):
            if ring := walk(other, [*way, name]):
                return ring
        done.add(name)
        return []

    return next((ring for name in edges if (ring := walk(name, []))), [])


def modules_imported(tree, names):
    """Return the modules of `names` that a file imports; of a package's module not the package."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(full & names or {node.module})
    return sorted(found & names)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_commands_read_command_lines(path):
    if room_of(path) != "commands" and path.name not in USE_ARGPARSE:
        assert "argparse" not in imports_of(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", sorted(ROOT.glob("tools/*.py")), ids=lambda p: p.name)
def test_tools_are_thin(path):
    source = path.read_text()
    assert source.count("\n") < MAX_TOOL
    assert "hiera_video.commands." in source


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_folders_are_small_and_prefixes_are_folders(folder):
    assert crowded(modules_of(folder)) == []


def test_folders_of_tests_are_rooms():
    for folder in (path for path in (ROOT / "tests").rglob("*") if path.is_dir()):
        way = folder.relative_to(ROOT / "tests")
        if way.parts[0] not in OTHER_TESTS | {"__pycache__"} and folder.name != "__pycache__":
            assert (PACKAGE / way).is_dir(), way


def test_the_picture_of_the_rooms_is_true():
    """Renew it by `python tests/house.py --write`."""
    page = PAGE.read_text()
    assert written(page, picture()) == page


def test_the_engine_is_the_engine_alone():
    assert sum(len(modules_of(f)) for f in FOLDERS if room_of(f / "x") == "engine") <= MAX_ENGINE
    for path in FILES:
        if room_of(path) not in ("", *USE_ENGINE):
            assert "hiera_video.engine" not in path.read_text(), path


def test_no_modules_import_one_another_in_a_ring():
    names = {module_name(path) for path in FILES}
    edges = {
        module_name(path): modules_imported(ast.parse(path.read_text()), names) for path in FILES
    }
    assert circle_in(edges) == []


def test_the_checks_find_what_they_look_for():
    assert breaks_floors("from hiera_video.engine.train import train", "data")
    assert breaks_floors("import hiera_video.models.hiera", "data")
    assert not breaks_floors("from hiera_video.utils import io", "data")
    assert reads_cfg("def f(cfg): return cfg.A")
    assert not reads_cfg("def f(config): return config.A")
    assert crowded([f"{letter}_x" for letter in "abcdefghijklmnopqrstu"]) == ["size"]
    assert crowded(["a", "a_x", "a_y", "a_z", "_b_x", "_b_y", "_b_z", "_b_w"]) == ["a"]
    assert circle_in({"a": ["b"], "b": ["c"], "c": ["a"]}) == ["a", "b", "c", "a"]
    assert circle_in({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_config_room_does_without_torch():
    for path in (PACKAGE / "config").glob("*.py"):
        assert not any(
            name.split(".")[0] == "torch" for name in imports_of(ast.parse(path.read_text()))
        )


def test_the_command_is_four_hops_from_the_loss():
    """`commands.train.main -> launch -> train -> train_epoch -> task.step`."""
    hops = [
        ("hiera_video/commands/train.py", "main", "launch("),
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
