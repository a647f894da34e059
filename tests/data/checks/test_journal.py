import os

import pytest

from hiera_video.data.checks.fingerprint import VideoFacts
from hiera_video.data.checks.journal import Journal, Verdict
from hiera_video.utils.errors import UserError

GOOD = Verdict(facts=VideoFacts(30, 1.0, 64, 48, "h264", is_short=False))
BAD = Verdict(reason="is empty (0 bytes).")
HUNG = Verdict(reason="hung", lost_after_sec=2.0)
SETTINGS = {"backend": "auto", "full": False}


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "é video.mp4"
    path.write_bytes(b"x" * 10)
    return str(path)


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "train_journal.jsonl")


def verdict_on(file, path, *, settings=SETTINGS, time_limit_sec=2.0):
    with Journal(file, settings) as journal:
        return journal.verdict(path, time_limit_sec=time_limit_sec)


def write(file, *entries, settings=SETTINGS):
    with Journal(file, settings) as journal:
        for path, verdict in entries:
            journal.add(path, verdict)


@pytest.mark.parametrize("verdict", [GOOD, BAD, HUNG])
def test_a_verdict_is_found_again(file, video, verdict) -> None:
    assert verdict_on(file, video) is None
    write(file, (video, verdict))
    assert verdict_on(file, video) == verdict
    assert verdict_on(file, video + "x") is None


def test_a_missing_file_stays_missing_until_it_is_there(file, tmp_path) -> None:
    path = str(tmp_path / "late.mp4")
    write(file, (path, Verdict(reason="no such file.")))
    assert verdict_on(file, path) is not None
    (tmp_path / "late.mp4").write_bytes(b"x")
    assert verdict_on(file, path) is None


def test_a_changed_file_is_looked_at_again(file, video) -> None:
    write(file, (video, BAD))
    os.utime(video, ns=(1, 1))
    assert verdict_on(file, video) is None
    write(file, (video, GOOD))
    assert verdict_on(file, video) == GOOD  # the last word counts


def test_a_video_in_a_shard_changes_with_it(file, video) -> None:
    path = f"{video}::clips/a.mp4@512+100"
    write(file, (path, GOOD))
    assert verdict_on(file, path) == GOOD
    os.utime(video, ns=(1, 1))
    assert verdict_on(file, path) is None


def test_a_scan_of_other_settings_has_verdicts_of_its_own(file, video) -> None:
    full = {**SETTINGS, "full": True}
    write(file, (video, GOOD))
    assert verdict_on(file, video, settings=full) is None
    write(file, (video, BAD), settings=full)
    assert verdict_on(file, video, settings=full) == BAD
    assert verdict_on(file, video) == GOOD


def test_more_time_gives_a_hung_video_a_second_chance(file, video) -> None:
    write(file, (video, HUNG))
    assert verdict_on(file, video, time_limit_sec=1.0) == HUNG
    assert verdict_on(file, video, time_limit_sec=2.1) is None


@pytest.mark.parametrize("rest", ['{"key": "', "{}", "[1]", "null", "\x80\x00", '{"key": 3}\n'])
def test_half_a_line_is_passed_over(file, video, rest) -> None:
    write(file, (video, GOOD))
    with open(file, "ab") as journal:
        journal.write(rest.encode("latin-1"))
    assert verdict_on(file, video) == GOOD
    other = video + ".other"
    write(file, (other, BAD))  # begins on a line of its own
    assert verdict_on(file, other) == BAD


def test_lines_are_on_the_disk_before_the_journal_is_closed(file, video) -> None:
    journal = Journal(file, SETTINGS)
    journal.add(video, GOOD)
    assert verdict_on(file, video) == GOOD
    journal.close()
    journal.close()


def test_afresh_forgets(file, video) -> None:
    write(file, (video, GOOD))
    Journal(file, SETTINGS, afresh=True).close()
    assert verdict_on(file, video) is None


def test_a_name_that_is_no_utf8_comes_back(file, tmp_path) -> None:
    path = os.path.join(str(tmp_path), "caf\udce9.mp4")
    write(file, (path, BAD))
    assert verdict_on(file, path) == BAD


def test_a_journal_that_cannot_be_written_is_the_users_to_know(tmp_path) -> None:
    with pytest.raises(UserError, match="must be writable, got: Is a directory. Try another"):
        Journal(str(tmp_path), SETTINGS)
