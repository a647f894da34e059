import os

import pytest

from hiera_video.utils import disk
from hiera_video.utils.errors import UserError
from hiera_video.utils.outputs import make_folder, refuse_unwritable, write_or_elsewhere

# Names that no file can have, even for root.
BAD = {
    "long": ("x" * 300, "File name too long"),
    "nul": ("a\0b", "null byte"),
    "folder": ("folder", "it is a folder"),
    "nowhere": (os.path.join("nowhere", "x"), "No such file or directory"),
    "below a file": (os.path.join("file", "x"), "Not a directory"),
}


@pytest.fixture
def room(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(room, name):
    file, why = BAD[name]
    with pytest.raises(UserError, match=why) as error:
        refuse_unwritable(str(room / file), key="--output")
    assert str(error.value).startswith("--output must be a file that can be written, got ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert sorted(os.listdir(room)) == ["file", "folder"]


def test_a_trial_leaves_what_is_there(room):
    refuse_unwritable(str(room / "file"), key="--output")
    refuse_unwritable(str(room / "new"), key="--output")
    assert (room / "file").read_text() == "old"
    assert sorted(os.listdir(room)) == ["file", "folder"]


@pytest.mark.parametrize("name", ["file", os.path.join("file", "x"), "x" * 300, "a\0b"])
def test_a_folder_that_cannot_be_written_is_refused(room, name):
    with pytest.raises(UserError, match="--output must be a folder that can be written"):
        make_folder(str(room / name), key="--output")
    make_folder(str(room / "a" / "b"), key="--output")
    assert os.listdir(room / "a" / "b") == []


@pytest.mark.parametrize("name", ["long", "nul", "folder"])
def test_a_result_gets_another_name_beside_the_one_it_cannot_have(room, name):
    said = []
    path = str(room / f"{BAD[name][0]}")
    found = write_or_elsewhere(path, lambda file: file.write(b"scores"), warn=said.append)
    assert os.path.dirname(found) == str(room)
    with open(found, "rb") as file:
        assert file.read() == b"scores"
    (line,) = said
    assert f"Written: {found!r}" in line
    assert BAD[name][1].replace("it is a folder", "Is a directory") in line
    assert len(os.listdir(room)) == 3


def test_a_result_whose_folder_cannot_be_goes_to_the_temporary_one(room, tmp_path, monkeypatch):
    said = []
    path = str(room / "file" / "scores.npz")
    found = write_or_elsewhere(path, lambda file: file.write(b"scores"), warn=said.append)
    try:
        assert os.path.basename(found).startswith("scores-")
        assert found.endswith(".npz")
        assert len(said) == 1
    finally:
        os.unlink(found)


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 255)
    disk.write_atomic(str(path), lambda file: file.write(b"content"))
    assert path.read_bytes() == b"content"
    path = tmp_path / ("é" * 127)
    disk.write_atomic(str(path), lambda file: file.write(b"content"))
    assert path.read_bytes() == b"content"
