from pathlib import Path

import pytest

from hiera_video.data.class_names import contradiction, known_lists, parse_names, published_names
from hiera_video.utils.errors import UserError


def test_kinetics_has_400_names_in_the_order_of_the_published_weights():
    names = published_names("kinetics400")
    assert len(set(names)) == len(names) == 400
    assert list(names) == sorted(names)
    # What the authors' notebook says of the outputs of their model (examples/inference.ipynb).
    assert (names[363], names[125]) == ("training dog", "feeding goats")


def test_something_something_has_174_names():
    names = published_names("ssv2")
    assert len(set(names)) == len(names) == 174
    assert list(names) == sorted(names)
    assert (names[0], names[173]) == (
        "Approaching something with your camera",
        "Wiping something off of something",
    )


def test_another_list_is_refused():
    assert known_lists() == ["kinetics400", "ssv2"]
    with pytest.raises(UserError, match="must be one of kinetics400, ssv2.*mean kinetics400"):
        published_names("kinetics-400")


def test_comments_and_empty_lines_are_no_names():
    assert parse_names("# a comment\n\n one \ntwo (2)\n") == ("one", "two (2)")


def test_the_lists_are_part_of_the_package():
    with open("pyproject.toml") as file:
        assert '"hiera_video.data.class_names" = ["*.txt"]' in file.read()
    assert len(list(Path("hiera_video/data/class_names").glob("*.txt"))) == 2


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        (["a", "b"], ["a", "b"], ""),
        (("a b", "C"), ["A_b", " c "], ""),
        (["\ufeffa", "b"], ["a", "b"], ""),
        (None, ["a"], ""),
        (["a"], None, ""),
        ([], ["a"], ""),
        ([1, 2], ["a", "b"], ""),
        (7, ["a", "b"], ""),
        (
            ["a", "b", "c"],
            ["a", "c", "b"],
            "class 1 is 'b' in the checkpoint and 'c' here; the names are the same in another "
            "order",
        ),
        (["a", "b"], ["a", "x"], "class 1 is 'b' in the checkpoint and 'x' here"),
        (["a", "b"], ["a"], "class 1 is 'b' in the checkpoint and none here"),
        (["a"], ["a", "b"], "class 1 is none in the checkpoint and 'b' here"),
        (["\x1b[31m"], ["b"], "class 0 is '\\x1b[31m' in the checkpoint and 'b' here"),
    ],
)
def test_the_first_class_that_differs_is_named(theirs, ours, said):
    assert contradiction(theirs, ours) == said
