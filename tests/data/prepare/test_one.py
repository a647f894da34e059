import errno
import os
import resource
import subprocess
import sys

import pytest

from hiera_video.data.prepare.encode import Encoding
from hiera_video.data.prepare.one import (
    PARTIAL,
    Task,
    describe_step,
    partial_path,
    prepare_one,
    remove_partials,
)
from hiera_video.data.workers.process import Job


def test_an_outcome_tells_the_facts_and_nothing_is_left_beside_it(videos, tmp_path):
    target = tmp_path / "new folder" / "Ü 1.mp4"
    outcome = prepare_one(Task(videos["h264_b.avi"], str(target), Encoding()), Job())
    assert outcome.facts is not None
    assert outcome.facts["frames"] == 40
    assert outcome.facts["output_bytes"] == target.stat().st_size
    assert outcome.facts["damaged_frames"] == 0
    assert outcome.facts["source"]["bytes"] == os.path.getsize(videos["h264_b.avi"])
    assert [path.name for path in target.parent.iterdir()] == ["Ü 1.mp4"]


@pytest.mark.parametrize("name", ["empty.mp4", "damaged.mp4", "noise.mp4", "missing.mp4"])
def test_a_bad_source_leaves_an_old_target_alone(bad_videos, tmp_path, name):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")
    outcome = prepare_one(Task(bad_videos[name], str(target), Encoding()), Job())
    assert outcome.facts is None
    assert outcome.reason
    assert outcome.disk_error is None
    assert str(tmp_path) not in outcome.reason
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_disk_that_is_full_is_told_from_a_bad_source(videos, tmp_path):
    # A limit on the size of files is what a test can set; it ends writes as a full disk does.
    code = (
        "import resource, sys; from hiera_video.data.prepare.one import *;"
        "from hiera_video.data.workers.process import Job;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "print(prepare_one(Task(*sys.argv[1:], Encoding()), Job()).disk_error)"
    )
    words = [sys.executable, "-c", code, videos["h264_b.mp4"], str(tmp_path / "out.mp4")]
    outcome = subprocess.run(words, capture_output=True, text=True, check=True)
    assert outcome.stdout.splitlines()[-1] == str(errno.EFBIG)
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_a_name_that_is_too_long_is_this_files_trouble_alone(videos, tmp_path):
    target = tmp_path / ("x" * 300 + ".mp4")
    outcome = prepare_one(Task(videos["h264_b.mp4"], str(target), Encoding()), Job())
    assert "File name too long" in outcome.reason
    assert outcome.disk_error is None
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_has_a_partial_one_too(videos, tmp_path):
    target = tmp_path / ("ü" * 125 + ".mp4")
    assert prepare_one(Task(videos["one_frame.mp4"], str(target), Encoding()), Job()).facts


def test_partial_files_are_known_by_name_and_removed(tmp_path):
    half = partial_path(str(tmp_path / "a" / "x.mp4"))
    assert PARTIAL.fullmatch(os.path.basename(half))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / os.path.basename(half)).write_bytes(b"half")
    (tmp_path / "a" / ".other.part").write_bytes(b"another's")
    remove_partials(str(tmp_path))
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".other.part"]
    remove_partials(str(tmp_path / "gone"))


def test_a_step_is_told_in_words(videos, tmp_path):
    seen = []

    class Listening(Job):
        def begin(self, step):
            seen.append(describe_step(step))

    prepare_one(Task(videos["one_frame.mp4"], str(tmp_path / "out.mp4"), Encoding()), Listening())
    assert seen == [
        *("opening the file, frame 0", "encoding the file, frame 0"),
        *("finishing the file, frame 1", "verifying the file, frame 0"),
        *("verifying the file, frame 0", "moving the file, frame 0"),
    ]
