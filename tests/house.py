"""Measure the rooms of the package, and draw their picture for docs/architecture.md.

python tests/house.py                  # figures of this checkout
python tests/house.py OTHER_CHECKOUT   # figures of another one
python tests/house.py --write          # renew the picture in docs/architecture.md
"""

import argparse
import ast
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- rooms: written by tests/house.py -->", "<!-- end of rooms -->"
# A file may import from its own room and the floors below; rooms of a floor are blind to others.
FLOORS = (
    ("utils",),
    ("config", "checkpoints"),
    ("data", "models", "solver", "metrics"),
    ("engine", "inference", "flops", "doctor"),
    ("serve", "export", "visualize", "benchmark", "sweeps"),
    ("report",),
    ("commands",),
)
WIDTH = 100


def modules_of(folder):
    """Return the names of a folder's modules, sorted, without `__init__`."""
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def picture(package=ROOT / "hiera_video"):
    """Return the rooms, floor by floor, each with its purpose and its modules."""
    lines = []
    for number, floor in enumerate(FLOORS):
        if number:
            lines.append("")
        for room in floor:
            folders = [
                package / room,
                *sorted(p.parent for p in package.glob(f"{room}/**/__init__.py")),
            ]
            for folder in dict.fromkeys(folders):
                if (folder / "__init__.py").exists():
                    lines += _drawn(folder, package)
    return "\n".join(lines)


def _drawn(folder, package):
    purpose = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())).split("\n")[0]
    depth = len(folder.relative_to(package).parts) - 1
    indent = "  " * depth
    head = f"{indent}{folder.name}/".ljust(16) + purpose
    modules = textwrap.wrap(
        ", ".join(modules_of(folder)),
        WIDTH - 16,
        initial_indent=" " * 16,
        subsequent_indent=" " * 16,
    )
    return [head, *modules]


def written(page, drawn):
    """Return the page with the picture between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n```\n{drawn}\n```\n\n{END}{after}"


def fragments(package):
    """Return the private functions with a body of under four lines that their file uses once."""
    found = []
    for path in sorted(package.rglob("*.py")):
        source = path.read_text()
        words = Counter(re.findall(r"\w+", source))
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef) or not re.match(r"_[a-z]", node.name):
                continue
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            if node.end_lineno - body[0].lineno < 3 and words[node.name] == 2:
                found.append(f"{path.relative_to(package)}:{node.lineno} {node.name}")
    return found


def figures(root):
    """Print files and lines a room, imports a file in engine/, fragments, modules of a model."""
    package = root / "hiera_video"
    files = sorted(package.rglob("*.py"))
    rooms = Counter()
    lines = Counter()
    for path in files:
        parts = path.relative_to(package).parts
        room = parts[0] if len(parts) > 1 else "(package)"
        rooms[room] += path.stem != "__init__"
        lines[room] += path.read_text().count("\n")
    for room in sorted(rooms):
        print(f"{room:12} {rooms[room]:4} files {lines[room]:6} lines")
    total = sum(lines.values())
    print(f"{'together':12} {sum(rooms.values()):4} files {total:6} lines")
    engine = [path for path in files if path.relative_to(package).parts[0] == "engine"]
    imports = [
        sum(
            isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hiera_video")
            for node in ast.walk(ast.parse(path.read_text()))
        )
        for path in engine
    ]
    print(f"imports of the package a file in engine/: {sum(imports) / len(imports):.1f}")
    found = fragments(package)
    rate = 1000 * len(found) / total
    print(f"private functions under four lines used once: {len(found)}, {rate:.1f} per 1,000 lines")
    code = (
        "import sys; import hiera_video.models.hiera;"
        "print(sum(name.startswith('hiera_video') for name in sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    number = loaded.stdout.strip()
    print(f"modules of the package loaded by import hiera_video.models.hiera: {number}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT, help="default: this one")
    parser.add_argument("--fragments", action="store_true", help="list small functions used once")
    parser.add_argument("--write", action="store_true", help="renew the picture in the docs")
    arguments = parser.parse_args(argv)
    if arguments.write:
        PAGE.write_text(written(PAGE.read_text(), picture()))
    elif arguments.fragments:
        print("\n".join(fragments(arguments.checkout / "hiera_video")))
    else:
        figures(arguments.checkout.resolve())


if __name__ == "__main__":
    main()
