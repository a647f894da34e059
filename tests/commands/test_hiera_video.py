"""The command hiera-video: it lists its commands, names the nearest, and runs the tools' code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from hiera_video import __main__ as program
from hiera_video.version import __version__

COMMANDS = sorted(program.COMMANDS)
# visualize_mae is `hiera-video visualize mae`.
TOOLS = sorted(path for path in Path("tools").glob("*.py") if path.stem != "visualize_mae")


def run(*words, **settings):
    command = [sys.executable, "-m", "hiera_video", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **settings)


def test_help_lists_every_command_in_one_line():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert sorted(listed) == COMMANDS
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_no_command_is_a_wrong_command_line():
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m hiera_video COMMAND")


def test_version():
    assert run("--version").stdout == f"hiera_video {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("pedict", "Did you mean predict?"),
        ("check_data", "Did you mean check-data?"),
        ("xyzzy", "Try python -m hiera_video --help."),
    ],
)
def test_a_misspelt_command_names_the_nearest(typed, advice):
    done = run(typed, "video.mp4")
    assert (done.returncode, done.stdout) == (2, "")
    said = f"error: {typed!r} is no command of python -m hiera_video. {advice}\n"
    assert done.stderr == said


def test_help_imports_no_command():
    """What takes seconds to import, torch above all, is imported by the commands alone."""
    done = run("--help", env={"PYTHONPATH": ".", "PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "hiera_video.utils.cli" in imported
    assert not imported & {"torch", "numpy", "yaml", "fvcore", "argparse"}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_every_tool_is_a_command(tool):
    """The tool and the command import the same function, and begin and end alike."""
    tree = ast.parse(tool.read_text())
    (imported,) = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("hiera_video.commands.")
    ]
    found = [
        command
        for command in program.COMMANDS.values()
        if imported.module == f"hiera_video.commands.{command.module}"
        and imported.names[0].name == command.function
    ]
    assert len(found) == 1
    assert ("needs_output=False" in tool.read_text()) == (not found[0].needs_output)
    assert ("needs_temporary=False" in tool.read_text()) == (not found[0].needs_temporary)


def test_every_file_of_the_room_is_a_command_or_shared():
    files = {path.stem for path in Path("hiera_video/commands").glob("*.py")}
    used = {command.module for command in program.COMMANDS.values()}
    assert files - {"__init__", "options"} == used


@pytest.mark.parametrize("name", ["train", "visualize"])
def test_usage_names_the_command_as_typed(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/hiera-video", name, "--help"])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: hiera-video {name} [-h]")


def test_an_error_of_a_command_is_one_line_and_status_1(tmp_path):
    done = run("flops", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: --cfg or --model must be given.")
