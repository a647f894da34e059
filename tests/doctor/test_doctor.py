import math
import os
import re
import subprocess
import sys
from functools import partial
from importlib import metadata
from itertools import pairwise

import pytest

from hiera_video.doctor import decoders
from hiera_video.doctor import machine as doctor
from hiera_video.doctor.machine import NOTE, OK, TROUBLE
from hiera_video.utils.machine import free_memory


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB; the test is skipped where none may be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield str(place)
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_a_trouble(small_disk):
    (found,) = doctor.check_disk([("OUTPUT_DIR", small_disk)])
    assert (found.status, found.name) == (TROUBLE, "disk")
    assert found.said == f"OUTPUT_DIR {small_disk} cannot be written to (No space left on device)"
    assert "Free some space" in found.advice
    assert os.listdir(small_disk) == []


def test_a_folder_that_is_yet_to_be_made_is_tried_where_it_will_lie(tmp_path, small_disk):
    for folder, status in ((tmp_path / "a/b/c", OK), (f"{small_disk}/a/b", TROUBLE)):
        (found,) = doctor.check_disk([("OUTPUT_DIR", str(folder))])
        assert found.status == status
        assert str(folder) in found.said
    assert not (tmp_path / "a").exists()


def test_an_output_that_is_a_file_is_a_trouble(tmp_path):
    (tmp_path / "file").touch()
    (found,) = doctor.check_disk([("OUTPUT_DIR", str(tmp_path / "file"))])
    assert found.status == TROUBLE


def test_little_shared_memory_is_a_trouble_for_several_gpus_alone(small_disk, tmp_path):
    (alone,) = doctor.check_shared_memory(num_gpus=1, path=small_disk)
    assert alone.status == NOTE
    assert "loader processes do not" in alone.said
    (several,) = doctor.check_shared_memory(num_gpus=8, path=small_disk)
    assert several.status == TROUBLE
    assert "--shm-size" in several.advice
    (none,) = doctor.check_shared_memory(num_gpus=8, path=str(tmp_path / "none"))
    assert none.status == NOTE


@pytest.mark.parametrize(
    ("limit", "used", "status"),
    [("1073741824", "1073000000", TROUBLE), ("max", "5", OK), ("nonsense", "5", OK)],
)
def test_the_limit_of_a_container_counts(tmp_path, limit, used, status):
    if (free_memory([]) or math.inf) < doctor._MIN_MEMORY_BYTES:
        pytest.skip("this machine itself is out of memory")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (found,) = doctor.check_memory([str(tmp_path / "memory.max")])
    assert found.status == status
    assert ("TRAIN.BATCH_SIZE" in found.advice) == (status == TROUBLE)


def test_pages_of_files_that_nothing_uses_are_free(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    assert free_memory([str(tmp_path / "memory.max")]) == 100
    (tmp_path / "memory.stat").write_text("anon 100\nactive_file 200\ninactive_file 600\n")
    assert free_memory([str(tmp_path / "memory.max")]) == 700


@pytest.mark.parametrize("error", [ValueError("a\nb"), SystemExit(3), RecursionError(), OSError()])
def test_a_check_that_fails_is_a_trouble(error):
    def check():
        yield doctor.Finding("x", OK, "before")
        raise error

    first, second = doctor.guarded("x", check)
    assert first.said == "before"
    assert second.status == TROUBLE
    assert type(error).__name__ in second.said
    assert "\n" not in second.said


def test_ctrl_c_is_no_trouble():
    def check():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        doctor.guarded("x", check)


def test_all_packages_that_an_installation_wants_are_looked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(doctor, "version_of", lambda name: asked.append(name) or "1")
    list(doctor.check_versions())
    wanted = metadata.requires("hiera_video")
    names = {re.match(r"[\w.-]+", line)[0].lower() for line in wanted if "extra ==" not in line}
    assert names
    assert names <= set(asked)


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(sys, "path", [])  # where the metadata of packages is looked for
    found = list(doctor.check_versions())
    assert found[-1].status == TROUBLE
    assert found[-1].said.startswith("not installed: torch, torchvision")


def test_a_decoder_that_hangs_is_given_up(monkeypatch, tmp_path):
    if not doctor.version_of("decord"):
        pytest.skip("decord is not installed")
    (tmp_path / "decord.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(decoders, "DECODERS", {"decord": "decord"})
    (found,) = decoders.check_decoders(time_limit_sec=0.5)
    assert found.status == TROUBLE
    assert "hangs" in found.said


def test_the_sample_tells_frames_apart(tmp_path, decode_all):
    decoders.write_sample(str(tmp_path / "sample.mp4"))
    greys = [frame.mean() for frame in decode_all(str(tmp_path / "sample.mp4"))]
    assert len(greys) == 12
    assert all(later - earlier > 12 for earlier, later in pairwise(greys))


def test_wrong_frames_are_a_trouble(monkeypatch):
    from hiera_video.data.decoders import pyav

    right = pyav.open_video

    class OneLate:
        def __init__(self, path, file):
            self._reader = right(path, file=file)

        def frames_at(self, indices):
            return self._reader.frames_at([index + (index < 11) for index in indices])

        def close(self):
            self._reader.close()

    assert decoders.try_decoder("pyav").status == OK
    monkeypatch.setattr(pyav, "open_video", OneLate)
    found = decoders.try_decoder("pyav")
    assert found.status == TROUBLE
    assert "returns wrong frames" in found.said


def _quits(task, job):
    os._exit(7)


def test_loader_processes_that_die_are_a_trouble(monkeypatch):
    monkeypatch.setattr(decoders, "_answer", _quits)
    (found,) = doctor.guarded("x", partial(decoders.check_loader, num_workers=1))
    assert found.status == TROUBLE
    assert "exit code 7" in found.said
    assert "DATA_LOADER.NUM_WORKERS 0" in found.advice
