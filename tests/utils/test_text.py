import pytest

from hiera_video.utils.errors import UserError
from hiera_video.utils.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.mp4", "plain name.mp4"),
        ("caf\xe9 \u4e2d\u6587 \u3000\xa0 \U0001f469\u200d\U0001f680", None),
        ("\x1b]0;title\x07red\x1b[31m", r"\x1b]0;title\x07red\x1b[31m"),
        ("two\nlines\rback\ttab", r"two\nlines\rback\ttab"),
        ("\x7f \x85 \x9b31m", r"\x7f \x85 \x9b31m"),
        ("\udcff \ud800", r"\udcff \ud800"),
        ("\u2028 \u2029", r"\u2028 \u2029"),
        ("gpj\u202e.mp4", r"gpj\u202e.mp4"),
        ("\ufeffname", r"\ufeffname"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == (text if shown is None else shown)
    printable(text).encode()  # no half of a surrogate pair is left


def test_what_is_to_be_kept_is_kept():
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_user_errors_are_printable():
    assert str(UserError("two\nlines \x1b[2J \udcff")) == "two\nlines \\x1b[2J \\udcff"


def test_user_errors_have_no_endless_lines():
    message = f"KEY must be a name, got {'a' * 5000!r}. Try another.\nsecond line"
    first, second = str(UserError(message)).split("\n")
    assert len(first) < 1300
    assert first.startswith("KEY must be a name, got 'aaa")
    assert first.endswith("aaa'. Try another.")
    assert second == "second line"
