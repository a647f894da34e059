import os
import subprocess
import sys

import pytest

TROUBLE = "TROUBLE"


def doctor(tmp_path, *words, env=None, modules=None, before=""):
    """Run the tool in a process, with `modules` (source by file name) before all others."""
    folder = tmp_path / "modules"
    folder.mkdir(exist_ok=True)
    for name, source in (modules or {}).items():
        (folder / name).write_text(source)
    command = f'{before} exec "{sys.executable}" tools/doctor.py {" ".join(words)}'
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def lines_of(done, name):
    return [line for line in done.stdout.splitlines() if line[8:].startswith(name)]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("healthy")
    return doctor(folder, f"--output {folder}")


def test_everything_is_looked_at(healthy):
    found = {line[8:].split(":")[0] for line in healthy.stdout.splitlines() if line[:2] == "ok"}
    assert {"python", "packages", "CPU", "disk", "decoder pyav", "loader processes"} <= found
    (pyav,) = lines_of(healthy, "decoder pyav")
    assert "reads the sample in" in pyav


def test_the_exit_status_tells_whether_there_are_troubles(healthy):
    troubles = [line for line in healthy.stdout.splitlines() if line.startswith(TROUBLE)]
    assert healthy.returncode == (1 if troubles else 0)
    assert healthy.stdout.splitlines()[-1] == (
        f"{len(troubles) or 'no'} trouble{'s' * (len(troubles) > 1)} found"
    )


@pytest.fixture(scope="module")
def ailing_room(tmp_path_factory):
    return tmp_path_factory.mktemp("room")  # for temporary files


@pytest.fixture(scope="module")
def ailing(tmp_path_factory, ailing_room):
    """Two decoders broken, no file beyond a mebibyte allowed, and few open at a time."""
    folder = tmp_path_factory.mktemp("ailing")
    done = doctor(
        folder,
        f"--output {folder}",
        modules={
            "decord.py": "raise RuntimeError('libavcodec.so.58 is missing\\nand more')",
            "torchcodec.py": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        },
        env={"TMPDIR": str(ailing_room)},
        before="ulimit -f 1024; ulimit -n 200;",
    )
    assert done.returncode == 1
    return done


def test_a_decoder_that_does_not_import_is_named_with_a_way_out(ailing):
    (line,) = lines_of(ailing, "decoder decord")
    if "is not installed" in line:
        pytest.skip("decord is not installed")
    assert line.startswith(f"{TROUBLE} decoder decord: does not work (RuntimeError: libavcodec")
    assert "-> pip install --force-reinstall decord, or pip uninstall decord" in ailing.stdout
    assert lines_of(ailing, "decoder pyav")[0].startswith("ok")
    assert lines_of(ailing, "loader processes")[0].startswith("ok")


def test_a_decoder_that_crashes_leaves_no_file(ailing, ailing_room):
    assert [p.name for p in ailing_room.iterdir() if "doctor" in p.name] == []


def test_a_decoder_that_crashes_is_named_with_a_way_out(ailing):
    (line,) = lines_of(ailing, "decoder torchcodec")
    if "is not installed" in line:
        pytest.skip("torchcodec is not installed")
    assert line == f"{TROUBLE} decoder torchcodec: crashes (SIGSEGV)"
    assert "-> Install FFmpeg's shared libraries" in ailing.stdout


def test_limits_of_the_shell_are_troubles(ailing):
    (line,) = lines_of(ailing, "disk: OUTPUT_DIR")
    assert line.startswith(f"{TROUBLE} disk: OUTPUT_DIR ")
    assert "cannot be written to (File too large)" in line
    assert "raise the quota (ulimit -f" in ailing.stdout
    assert lines_of(ailing, "open files") == [f"{TROUBLE} open files: 200 at a time"]
    assert "-> ulimit -n 4096 in the shell of the run" in ailing.stdout


def test_a_broken_pyav_is_named(tmp_path):
    done = doctor(tmp_path, f"--output {tmp_path}", modules={"av.py": "raise OSError('no libx')"})
    assert done.returncode == 1
    (line,) = lines_of(done, "decoder pyav")
    assert line.startswith(TROUBLE)
    assert "cannot write a video (OSError: no libx)" in line
    assert "-> pip install --force-reinstall av" in done.stdout
    # Loader processes import it first of all: they are in trouble too, and say why.
    (line,) = lines_of(done, "loader processes")
    assert line.startswith(TROUBLE)
    assert "OSError: no libx" in line


@pytest.mark.parametrize(
    "source", ["raise ImportError('cannot open libc10.so')", "import sys; sys.exit(3)", "1 +"]
)
def test_a_package_that_does_not_even_import_is_two_lines(tmp_path, source):
    done = doctor(tmp_path, modules={"torch.py": source})
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{TROUBLE} hiera_video does not import (")
    assert second.strip().startswith("-> pip install -c constraints.txt -e .")


def test_a_disk_without_any_room_is_two_lines(tmp_path):
    done = doctor(tmp_path, f"--output {tmp_path}", before="ulimit -f 0;")
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{TROUBLE} nothing can start without a place for temporary files (")
    assert second.strip().startswith("-> Free some space, raise the quota (ulimit -f, quota -s)")


def test_too_few_open_files_for_processes_are_no_traceback(tmp_path):
    done = doctor(tmp_path, f"--output {tmp_path}", before="ulimit -n 12;")
    assert done.returncode == 1
    assert TROUBLE in done.stdout


def test_an_unknown_argument_is_refused(run_tool):
    assert run_tool("doctor", "--outputs x").status == 2
