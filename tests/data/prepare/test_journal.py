import os
import subprocess
import sys

import pytest

from hiera_video.data.prepare.journal import JOURNAL, Journal, source_state
from hiera_video.data.prepare.plan import Job
from hiera_video.utils.errors import UserError

SETTINGS = {"crf": 20}


@pytest.fixture
def job(tmp_path):
    (tmp_path / "in ü.avi").write_bytes(b"source")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "in.mp4").write_bytes(b"output")
    return Job(str(tmp_path / "in ü.avi"), "videos/in.mp4")


def note(folder, job):
    with Journal(str(folder), SETTINGS) as journal:
        journal.add(job, source=source_state(job.source), output_bytes=6)


def is_finished(folder, job, settings=SETTINGS):
    with Journal(str(folder), settings) as journal:
        return journal.finished(job) is not None


def test_what_is_noted_is_known_to_the_next_run(tmp_path, job):
    assert not is_finished(tmp_path, job)
    note(tmp_path, job)
    assert is_finished(tmp_path, job)


def test_what_has_changed_since_is_not_finished(tmp_path, job):
    note(tmp_path, job)
    assert not is_finished(tmp_path, job, {"crf": 23})
    assert not is_finished(tmp_path, Job(__file__, job.output))
    (tmp_path / "videos" / "in.mp4").write_bytes(b"shorter"[:3])
    assert not is_finished(tmp_path, job)
    (tmp_path / "videos" / "in.mp4").unlink()
    assert not is_finished(tmp_path, job)
    (tmp_path / "videos" / "in.mp4").write_bytes(b"output")
    assert is_finished(tmp_path, job)
    os.utime(job.source, (1, 1))
    assert not is_finished(tmp_path, job)


def test_a_line_that_was_cut_off_is_passed_over(tmp_path, job):
    note(tmp_path, job)
    path = tmp_path / JOURNAL
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2])
    assert is_finished(tmp_path, job)
    other = Job(job.source, "videos/other.mp4")
    (tmp_path / "videos" / "other.mp4").write_bytes(b"output")
    note(tmp_path, other)
    assert is_finished(tmp_path, other)
    assert is_finished(tmp_path, job)


def test_one_run_at_a_time(tmp_path):
    with (
        Journal(str(tmp_path), SETTINGS),
        pytest.raises(UserError, match="by one run at a time"),
    ):
        Journal(str(tmp_path), SETTINGS)
    Journal(str(tmp_path), SETTINGS).close()


def test_a_run_that_was_killed_holds_no_lock(tmp_path):
    code = (
        "import os, signal, sys; from hiera_video.data.prepare.journal import Journal;"
        "journal = Journal(sys.argv[1], {}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    Journal(str(tmp_path), SETTINGS).close()
