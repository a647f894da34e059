"""A lock on a folder: against processes of this machine, and records of others."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest
import simplejson

from hiera_video.utils import folder_lock
from hiera_video.utils.errors import UserError
from hiera_video.utils.folder_lock import FILE, FolderLock, this_process


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT_SEC", 0.02)
    monkeypatch.setattr(folder_lock, "STALE_SEC", 0.4)
    monkeypatch.setattr(folder_lock, "_LOOK_SEC", 0.02)


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


@pytest.fixture
def said():
    return []


def refuses(folder, said=None):
    with pytest.raises(UserError, match="no other run trains in") as caught:
        FolderLock(folder, (said if said is not None else []).append)
    return str(caught.value)


HOLD = (
    "import sys, time; from hiera_video.utils.folder_lock import FolderLock; "
    "lock = FolderLock(sys.argv[1], print); print('held', flush=True); time.sleep(60)"
)


def test_a_second_run_is_refused_and_told_who_holds_it_until_that_dies(folder, said):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        message = refuses(folder)
        own = this_process()
        assert f"process {holder.pid} on {own.host} has run since {own.since[:10]}" in message
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert os.path.exists(os.path.join(folder, FILE))  # its record is still there
    FolderLock(folder, said.append).release()
    assert said == []  # the system's lock is gone with its process: nothing to wait for
    assert os.listdir(folder) == []


def test_two_runs_of_one_process_are_two(folder, said):
    lock = FolderLock(folder, said.append)
    assert f"process {os.getpid()} on" in refuses(folder)
    lock.check()
    lock.release()
    FolderLock(folder, said.append).release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_that_outlives_the_holder_does_not_keep_it(folder, said):
    lock = FolderLock(folder, said.append)
    ready, say_ready = os.pipe()
    child = os.fork()
    if not child:
        os.write(say_ready, b"!")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(ready, 1)
        lock._file.close()  # as the system does for a holder that was killed
        lock._ended.set()
        FolderLock(folder, said.append).release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def write_record(folder, *, age_sec=0.0, **other):
    """Leave what a holder on another kernel has written; the process number is ours, by chance."""
    path = os.path.join(folder, FILE)
    record = replace(this_process(), host="node7", boot="another", **other)
    with open(path, "w") as file:
        simplejson.dump(asdict(record), file)
    then = time.time() - age_sec
    os.utime(path, (then, then))
    return path


@pytest.fixture
def beat():
    """Keep on setting a file's time, as its holder does."""
    ended, threads = threading.Event(), []

    def start(path):
        def run():
            while not ended.wait(0.05):
                os.utime(path)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield start
    ended.set()
    for thread in threads:
        thread.join()


def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("has_locks", [True, False])
def test_a_holder_on_another_machine_is_known_by_its_beats(
    folder, said, beat, monkeypatch, has_locks
):
    if not has_locks:
        monkeypatch.setattr(folder_lock.fcntl, "flock", no_locks)
    beat(write_record(folder))
    assert "on node7 has run since" in refuses(folder, said)
    assert len(said) == 1
    assert "waiting up to" in said[0]


# Below zero: the clock has been set back since.
@pytest.mark.parametrize(("age_sec", "num_warnings"), [(0.0, 2), (1000.0, 1), (-1000.0, 2)])
def test_a_dead_holder_on_another_machine_is_followed(folder, said, age_sec, num_warnings):
    write_record(folder, age_sec=age_sec)
    lock = FolderLock(folder, said.append)
    assert len(said) == num_warnings  # that it waits, where the last beat is young
    assert "on node7" in said[-1]
    assert "is taken over" in said[-1]
    lock.check()
    lock.release()


def test_where_there_are_no_locks_it_says_so_and_beats(folder, said, monkeypatch):
    monkeypatch.setattr(folder_lock.fcntl, "flock", no_locks)
    lock = FolderLock(folder, said.append)
    assert len(said) == 1
    assert "has no locks" in said[0]
    assert f"process {os.getpid()} on" in refuses(folder)  # by its beats
    lock.release()
    FolderLock(folder, said.append).release()


def test_a_lock_that_a_server_keeps_for_a_dead_machine_is_said_to_be_silent(folder):
    path = write_record(folder, age_sec=1000.0)
    with open(path, "r+b") as file:
        folder_lock.fcntl.flock(file, folder_lock.fcntl.LOCK_EX)
        assert f"no sign of life for 1000 s: if it is gone, remove {path}" in refuses(folder)


@pytest.mark.parametrize("new_file", [True, False])
def test_who_has_lost_the_folder_is_told(folder, said, new_file):
    lock = FolderLock(folder, said.append)
    if new_file:
        os.unlink(os.path.join(folder, FILE))
        lock.check()  # nobody has it
    write_record(folder)
    with pytest.raises(UserError, match="where process .* on node7 has run since"):
        lock.check()
    lock.release()
    assert os.listdir(folder) == [FILE]  # the other's


def test_a_file_of_another_kind_is_no_holder(folder, said):
    for content in (b"", b"{", b"[]", b'{"host": 1}'):
        with open(os.path.join(folder, FILE), "wb") as file:
            file.write(content)
        FolderLock(folder, said.append).release()
    assert said == []


def test_the_holder_beats(folder, said):
    lock = FolderLock(folder, said.append)
    path = os.path.join(folder, FILE)
    os.utime(path, (0, 0))
    end = time.monotonic() + 10
    while os.stat(path).st_mtime == 0:
        assert time.monotonic() < end
        time.sleep(0.01)
    lock.release()
