"""What every tool does alike: Ctrl-C, standard streams, no place for temporary files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hiera_video.utils import cli

TOOLS = sorted(path.stem for path in Path("tools").glob("*.py"))

# Presses Ctrl-C when the tool imports the module that CTRL_C_AT names.
PRESSES = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["CTRL_C_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""

SLOW = pytest.mark.slow


def run(words, *, shell="exec", **settings):
    """Run python with `words` through a shell, which sets what a caller may set."""
    env = {k: v for k, v in settings.pop("env", os.environ).items() if k != "PYTHONUNBUFFERED"}
    command = ["bash", "-c", f'{shell} "{sys.executable}" "$@"', "bash", *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, **settings)


# make_demo_data imports no PyTorch before it has read its arguments.
@pytest.mark.parametrize(
    ("tool", "module"),
    [
        *((tool, "argparse") for tool in TOOLS),
        *(
            pytest.param(tool, "numpy" if tool == "make_demo_data" else "torch", marks=SLOW)
            for tool in TOOLS
        ),
    ],
)
def test_ctrl_c_during_imports_is_one_line_and_status_130(tmp_path, tool, module):
    (tmp_path / "sitecustomize.py").write_text(PRESSES)
    env = os.environ | {"PYTHONPATH": str(tmp_path), "CTRL_C_AT": module}
    done = run([f"tools/{tool}.py", "--help"], env=env)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nstopped by Ctrl-C\n")


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "doctor"])
def test_no_place_for_temporary_files_is_one_line(tool):
    done = run([f"tools/{tool}.py", "--help"], shell="ulimit -f 0; exec")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: TMPDIR must be a folder that can be written to, got none (")
    assert done.returncode == 1


# A tool without heavy imports: prints the number of lines in its first argument.
SCRIPT = """
import sys
from hiera_video.utils import cli
cli.begin(__name__)

def main():
    for number in range(int(sys.argv[1])):
        print("line", number)
    with open(sys.argv[2], "w") as file:  # the lowest number that is free
        file.write("content")
        print("a note", file=sys.stderr)
    return 0

cli.run(main, needs_output=len(sys.argv) < 4)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return str(path)


# Few lines fail when Python ends, many on the way; -u fails at once.
@pytest.mark.parametrize("flags", [[], ["-u"]])
@pytest.mark.parametrize("lines", ["3", "3000"])
def test_a_full_standard_output_is_one_line(script, tmp_path, lines, flags):
    done = run([*flags, script, lines, str(tmp_path / "x")], shell="exec >/dev/full;")
    (line,) = [line for line in done.stderr.splitlines() if line != "a note"]
    assert line == (
        "error: standard output could not be written (No space left on device). Free some space, "
        "or try another file."
    )
    assert done.returncode == 1


@pytest.mark.parametrize("flags", [[], ["-u"]])
def test_a_full_standard_output_that_is_a_by_product_ends_nothing(script, tmp_path, flags):
    words = [*flags, script, "3000", str(tmp_path / "x"), "by-product"]
    done = run(words, shell="exec >/dev/full;")
    assert (done.returncode, done.stderr) == (0, "a note\n")
    assert (tmp_path / "x").read_text() == "content"


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_streams_that_are_closed_or_full_end_nothing_and_reach_no_file(script, tmp_path, streams):
    done = run([script, "3", str(tmp_path / "x")], shell=f"exec {streams};")
    assert done.returncode == 0
    assert (tmp_path / "x").read_text() == "content"
    assert "note" not in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error(script, tmp_path):
    reader = 'set -o pipefail; first() { local all=("$@"); "${all[@]}" | head -1; }; first'
    done = run([script, "300000", str(tmp_path / "x")], shell=reader)
    assert (done.returncode, done.stdout, done.stderr) == (0, "line 0\n", "")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "ascii:surrogateescape"])
def test_any_name_can_be_printed(tmp_path, encoding):
    script = tmp_path / "names.py"
    script.write_text(
        "from hiera_video.utils import cli\n"
        'cli.run(lambda: print("caf\\xe9 \\u4e2d \\ud800 \\udcff|"))\n'
    )
    env = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, script], capture_output=True, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    expected = {
        "utf-8": b"caf\xc3\xa9 \xe4\xb8\xad \\ud800 \xff|\n",
        "latin-1": b"caf\xe9 \\u4e2d \\ud800 \\udcff|\n",
    }
    assert done.stdout == expected.get(encoding, b"caf\\xe9 \\u4e2d \\ud800 \\udcff|\n")


def test_ctrl_c_at_work_is_one_line(tmp_path):
    script = tmp_path / "waits.py"
    script.write_text(
        "import os, signal, time\n"
        "from hiera_video.utils import cli\n"
        "cli.begin(__name__)\n"
        "cli.run(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(60)))\n"
    )
    done = run([str(script)])
    assert (done.returncode, done.stderr) == (130, "\nstopped by Ctrl-C\n")


def test_a_tool_that_is_imported_changes_nothing():
    before = signal.getsignal(signal.SIGINT)
    cli.begin("tools.report")
    assert signal.getsignal(signal.SIGINT) == before
