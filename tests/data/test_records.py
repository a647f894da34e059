import dataclasses

import pytest

from hiera_video.data.records import (
    RecordError,
    VideoRecord,
    check_split,
    find_file,
    raise_problems,
    resolve_path,
)


def test_a_record_cannot_be_changed() -> None:
    record = VideoRecord("a.mp4", 3, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.label = 0  # type: ignore[misc]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_three_splits_pass(split) -> None:
    check_split(split)


def test_another_split_is_refused() -> None:
    with pytest.raises(ValueError, match="train, val, test, got 'validation'"):
        check_split("validation")


def test_the_first_name_there_is_wins(tmp_path) -> None:
    (tmp_path / "second.csv").write_text("x")
    names = ["first.csv", "second.csv"]
    assert find_file(str(tmp_path), names, holds="lines") == str(tmp_path / "second.csv")
    (tmp_path / "first.csv").write_text("x")
    assert find_file(str(tmp_path), names, holds="lines") == str(tmp_path / "first.csv")


def test_a_missing_file_is_named_with_what_it_holds_and_the_demo(tmp_path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", ""):
        with pytest.raises(RecordError) as caught:
            find_file(str(folder), ["train.csv"], holds="lines of `path label`")
        message = str(caught.value)
        assert "\n" not in message
        for part in ("DATA.PATH_TO_DATA_DIR", "train.csv", "lines of `path label`", "make demo"):
            assert part in message
        assert repr(str(folder)) in message


def test_a_directory_in_the_place_of_the_file_is_named(tmp_path) -> None:
    (tmp_path / "train.csv").mkdir()
    with pytest.raises(RecordError, match=r"train\.csv must be a file .* got a directory"):
        find_file(str(tmp_path), ["train.csv"], holds="lines")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b c.mp4", "/data/a/b c.mp4"),
        ("/elsewhere/b.mp4", "/elsewhere/b.mp4"),
        ("https://host/b.mp4", "https://host/b.mp4"),
    ],
)
def test_only_relative_paths_are_moved(path, expected) -> None:
    assert resolve_path(path, folder="/data") == expected


def test_problems_are_shown_together_up_to_ten() -> None:
    raise_problems([])
    with pytest.raises(RecordError) as caught:
        raise_problems(["a.csv:1: bad", "a.csv:7: worse"])
    assert str(caught.value) == "a.csv:1: bad\na.csv:7: worse"
    with pytest.raises(RecordError) as caught:
        raise_problems([f"a.csv:{number}: bad" for number in range(1, 31)])
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[9] == "a.csv:10: bad"
    assert "20 more" in lines[10]
    assert "30 in all" in lines[10]
