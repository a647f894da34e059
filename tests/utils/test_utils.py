import os
import subprocess
import sys
import textwrap

import pytest

from hiera_video import models
from hiera_video.utils import cli, disk, io
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import closest, find_function, find_module
from hiera_video.utils.seed import rng_for, seed_for


def test_lookup_finds_files_and_public_functions():
    module = find_module(models.__name__, "hiera", key="MODEL.ARCH")
    assert find_function(module, "hiera_base_16x224", key="MODEL.MODEL_NAME").__name__


def test_lookup_misses_name_the_key_and_the_neighbours():
    with pytest.raises(UserError, match=r"MODEL.ARCH must be .*baselines.*Did you mean hiera\?"):
        find_module(models.__name__, "heira", key="MODEL.ARCH")
    module = find_module(models.__name__, "hiera", key="MODEL.ARCH")
    with pytest.raises(UserError, match=r"Did you mean hiera_base_16x224\?"):
        find_function(module, "hiera_base_16x22", key="MODEL.MODEL_NAME")
    with pytest.raises(UserError, match="must be a function"):
        find_function(module, "_video_hiera", key="MODEL.MODEL_NAME")  # private
    with pytest.raises(UserError, match="must be a function"):
        find_function(module, "plan_blocks", key="MODEL.MODEL_NAME")  # imported, not its own


def test_closest_ignores_case_and_gives_nothing_for_nothing_near():
    assert closest("train", ["TRAIN", "TEST"]) == " Did you mean TRAIN?"
    assert closest("xyz", ["TRAIN", "TEST"]) == ""


def test_atomic_write_replaces_the_file_whole(tmp_path):
    path = str(tmp_path / "file")
    disk.write_atomic(path, lambda file: file.write(b"first"))
    disk.write_atomic(path, lambda file: file.write(b"second"))
    assert io.open_file(path).read() == "second"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_atomic_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = str(tmp_path / "file")
    disk.write_atomic(path, lambda file: file.write(b"first"))

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        disk.write_atomic(path, fail)
    assert io.open_file(path).read() == "first"
    assert os.listdir(tmp_path) == ["file"]


def test_atomic_write_respects_the_umask(tmp_path):
    path = str(tmp_path / "file")
    old = os.umask(0o027)
    try:
        disk.write_atomic(path, lambda file: file.write(b"x"))
    finally:
        os.umask(old)
    assert os.stat(path).st_mode & 0o777 == 0o640


def test_random_numbers_depend_on_their_key_alone():
    assert rng_for("a", 0, 1, 2).random() == rng_for("a", 0, 1, 2).random()
    keys = [("a", 0, 1, 2), ("a", 0, 2, 1), ("b", 0, 1, 2), ("a", 0), ("a", 0, 0), ("a", 0, 0, 0)]
    assert len({rng_for(*key).random() for key in keys}) == len(keys)
    assert len({seed_for(*key) for key in keys}) == len(keys)
    assert all(0 <= seed_for(*key) < 2**63 for key in keys)


def test_tools_show_user_errors_in_one_line_and_exit_with_1(capsys):
    def main():
        raise UserError("KEY must be RULE, got VALUE. Try X.")

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: KEY must be RULE, got VALUE. Try X.\n"


def test_tools_put_home_for_a_tilde_that_no_shell_has_seen(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["tool.py", "~/a.mp4", "--output=~/b", "--label", "a~b", "--name=c~d", "-5", "x=~/y"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        cli.run(lambda: 0)
    assert sys.argv[1:] == [f"{tmp_path}/a.mp4", f"--output={tmp_path}/b", *words[3:]]


def test_files_at_home_are_found_by_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    io.make_dirs("~/folder")
    disk.write_atomic("~/folder/x.txt", lambda file: file.write(b"home"))
    assert (tmp_path / "folder" / "x.txt").read_text() == "home"
    assert io.is_dir("~/folder")
    assert io.is_file("~/folder/x.txt")
    assert io.exists("~/folder/x.txt")
    with io.open_file("~/folder/x.txt") as file:
        assert file.read() == "home"


def test_tools_keep_the_traceback_of_a_bug():
    with pytest.raises(KeyError):
        cli.run(lambda: {}["bug"])


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )


def test_torchvision_imports_whatever_torch_it_finds():
    result = run_python("""
        from hiera_video.utils.compat import import_torchvision
        torchvision = import_torchvision()
        from torchvision.transforms.v2 import functional
        import torch
        frames = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
        assert functional.posterize(frames, 3).shape == frames.shape
        assert import_torchvision() is torchvision
    """)
    assert result.returncode == 0, result.stderr


def test_torchvision_is_repaired_where_its_operators_do_not_load():
    # The fault made: the import fails as with a CPU-only torch, whatever is installed. The second
    # import is a stand-in too, as one that loads its operators would define them again.
    result = run_python("""
        import types
        import torch
        from hiera_video.utils import compat

        calls = []

        def fail_once(name, package=None):
            calls.append(name)
            if len(calls) == 1:
                raise RuntimeError("operator torchvision::nms does not exist")
            return types.ModuleType(name)

        compat.importlib.import_module = fail_once
        assert compat.import_torchvision().__name__ == "torchvision"
        assert calls == ["torchvision", "torchvision"]
        assert torch.ops.torchvision.nms and torch.ops.torchvision.qnms
    """)
    assert result.returncode == 0, result.stderr


def test_other_import_errors_of_torchvision_are_not_hidden():
    result = run_python("""
        from hiera_video.utils import compat

        def fail(name, package=None):
            raise RuntimeError("something else")

        compat.importlib.import_module = fail
        try:
            compat.import_torchvision()
        except RuntimeError as error:
            assert str(error) == "something else"
        else:
            raise SystemExit("no error")
    """)
    assert result.returncode == 0, result.stderr


def test_pytorchvideo_models_import():
    result = run_python("""
        from hiera_video.utils.compat import import_pytorchvideo
        assert import_pytorchvideo("models.x3d").create_x3d
    """)
    assert result.returncode == 0, result.stderr
