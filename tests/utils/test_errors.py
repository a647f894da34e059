"""One line for each kind of error that a message quotes."""

import pytest

from hiera_video.utils.errors import cause_of, first_line, reason_of

CASES = [
    (ValueError("one\ntwo"), "one", "one", "ValueError: one"),
    (ValueError(" \n "), "ValueError", "ValueError", "ValueError"),
    (OSError(2, "No such file", "a"), "[Errno 2] No such file: 'a'", "No such file", None),
    (OSError("no route\nmore"), "no route", "no route", "OSError: no route"),
]


@pytest.mark.parametrize(("error", "line", "cause", "reason"), CASES)
def test_an_error_in_one_line(error, line, cause, reason) -> None:
    assert first_line(error) == line
    assert cause_of(error) == cause
    assert reason is None or reason_of(error) == reason
