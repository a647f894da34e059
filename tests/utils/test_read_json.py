import pytest
import simplejson

from hiera_video.utils.read_json import parse_json


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 6000, "{", "", "nan", b"[1,"]
)
def test_whatever_is_wrong_is_one_kind_of_error(text):
    with pytest.raises(simplejson.JSONDecodeError):
        parse_json(text)


def test_what_is_right_is_read():
    assert parse_json(b'{"a": [1, 2.5, null, "\xc3\xa9"]}') == {"a": [1, 2.5, None, "é"]}
