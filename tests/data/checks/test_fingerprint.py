import hashlib
import json
import statistics

import pytest

from hiera_video.data.checks.fingerprint import (
    LENGTH_SEC,
    VideoFacts,
    describe_check,
    describe_records,
    distribution,
    fingerprint,
    fingerprint_path,
    list_facts,
    list_hash,
    percent,
    render,
)
from hiera_video.data.checks.known_lists import KNOWN_LISTS, compare_with_known
from hiera_video.data.datasets import kinetics
from hiera_video.data.records import NO_LABEL, VideoRecord


def records_of(labels, folder="/data/videos"):
    return [VideoRecord(f"{folder}/{i}.mp4", label, i) for i, label in enumerate(labels)]


def taken(records, num_classes=3, bad=(), **changes):
    facts = {
        r.path: None if i in bad else VideoFacts(30 * (i + 1), i + 1.0, 320, 240 + i, "h264", False)
        for i, r in enumerate(records)
    }
    settings = {
        "split": "train",
        "clean_hash": list_hash([r for i, r in enumerate(records) if i not in bad]),
        "depth": "clips",
        "backend": "auto",
        "notes": [],
    }
    return fingerprint(records, num_classes, facts, **(settings | changes))


def test_a_list_is_counted_by_class() -> None:
    facts = list_facts(records_of([0, 0, 2, 2, 2]), 4)
    assert (facts.num_videos, facts.per_class) == (5, {0: 2, 1: 0, 2: 3, 3: 0})
    assert facts.empty_classes() == [1, 3]
    assert list_facts(records_of([NO_LABEL] * 2), 4).per_class == {}


def test_the_hash_is_of_the_list_and_not_of_where_it_lies() -> None:
    here = records_of([0, 1, 1])
    assert list_hash(here) == list_hash(records_of([0, 1, 1], folder="elsewhere/copy"))
    assert list_hash(here) == list_hash(tuple(here))  # any sequence
    changed = [here[:2], here[::-1], records_of([0, 1, 2]), [here[0], here[1], here[1]]]
    hashes = {list_hash(records) for records in [here, *changed]}
    assert len(hashes) == 5
    # Not to change: fingerprints outlive versions of this code.
    rows = b"0.mp4\x000\n1.mp4\x001\n2.mp4\x001\n"
    assert list_hash(here) == hashlib.sha256(rows).hexdigest()[:16]
    assert len(list_hash([])) == 16


def test_a_name_that_is_no_utf8_can_be_hashed() -> None:
    assert len(list_hash([VideoRecord("/data/caf\udce9.mp4", 0, 0)])) == 16


def test_a_run_logs_what_the_list_holds() -> None:
    records = records_of([0, 0, 0, 2])
    assert describe_records(records, 4) == [
        f"4 videos of 4 classes (0 to 3 per class, median 0.5), list {list_hash(records)}",
        "2 of 4 classes have no video: 1, 3",
    ]
    assert describe_records(records_of([NO_LABEL] * 3), 400) == [
        f"3 videos without labels, list {list_hash(records_of([NO_LABEL] * 3))}"
    ]
    many = describe_records(records_of([0]), 100)[1]
    assert many == "99 of 100 classes have no video: 1, 2, 3, 4, 5, ..."


@pytest.mark.parametrize(
    ("num_videos", "num_classes", "line"),
    [
        (
            240_436,
            400,
            "Kinetics-400 training: 2.5 % fewer than the 246,535 of the official list; as many as "
            "the 240,436 of the copy of MMAction2",
        ),
        (
            234_619,
            400,
            "Kinetics-400 training: 4.8 % fewer than the 246,535 of the official list; 24 fewer "
            "than the 234,643 of the copy of Non-local Networks",
        ),
        (
            19_907,
            400,
            "Kinetics-400 validation: as many as the 19,907 of the official list",
        ),
        (
            168_914,
            174,
            "Something-Something v2 training: 1 more than the 168,913 of the official list",
        ),
        (24_777, 174, "Something-Something v2 validation: as many as the 24,777 of"),
        (27_157, 174, "Something-Something v2 test: as many as the 27,157 of"),
    ],
)
def test_a_list_is_held_against_the_known_one(num_videos, num_classes, line) -> None:
    (found,) = compare_with_known(num_videos, num_classes)
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("num_videos", "num_classes"), [(100, 8), (246_535, 8), (100, 400), (60_000, 400), (500, 174)]
)
def test_another_data_set_is_not_held_against_it(num_videos, num_classes) -> None:
    assert compare_with_known(num_videos, num_classes) == []


def test_no_copy_has_more_videos_than_the_list() -> None:
    for known in KNOWN_LISTS:
        assert all(size < known.num_videos for size, _owner in known.copies)


def test_the_known_size_is_among_the_lines_of_a_run() -> None:
    lines = describe_records(records_of([i % 174 for i in range(24_777)]), 174)
    assert lines[1:] == [
        "Something-Something v2 validation: as many as the 24,777 of the official list"
    ]


def test_a_fingerprint_is_plain_json_and_adds_up() -> None:
    records = records_of([0, 0, 1, 1, 1])
    found = taken(records, bad={3})
    assert json.loads(json.dumps(found)) == found
    assert found["list"]["num_videos"] == 5
    assert found["list"]["videos_per_class"] == {
        "min": 0,
        "median": 2,
        "max": 3,
        "counts": {"0": 2, "1": 3, "2": 0},
    }
    assert found["check"] == {
        "depth": "clips",
        "backend": "auto",
        "num_decodable": 4,
        "num_bad": 1,
        "share_decodable": 0.8,
    }
    videos = found["videos"]
    assert videos["duration_sec"] == 1 + 2 + 3 + 5
    assert videos["codecs"] == {"h264": 4}
    assert videos["short_side_px"]["max"] == 244
    for name in ("short_side_px", "length_sec", "frames"):
        assert sum(bin_["count"] for bin_ in videos[name]["histogram"]) == 4


def test_the_same_data_gives_the_same_fingerprint() -> None:
    assert taken(records_of([0, 1])) == taken(records_of([0, 1], folder="/mnt/other"))


def test_a_video_of_unknown_rate_has_no_length() -> None:
    (record,) = records_of([0])
    found = fingerprint(
        [record],
        1,
        {record.path: VideoFacts(10, None, 64, 48, "vp9", True)},
        split="val",
        clean_hash="",
        depth="full",
        backend="pyav",
        notes=[],
    )
    assert found["videos"]["num_without_duration"] == 1
    assert found["videos"]["length_sec"]["median"] is None
    assert "length      unknown" in render(found)


def test_bins_hold_their_lower_end() -> None:
    values = [0.0, 0.99, 1.0, 10.99, 11.0, 60.0, 4000.0]
    found = distribution(values, LENGTH_SEC)
    counts = {bin_["from"]: bin_["count"] for bin_ in found["histogram"] if bin_["count"]}
    assert counts == {0: 2, 1: 1, 8: 1, 11: 1, 60: 2}
    assert found["histogram"][-1]["below"] is None
    assert found["median"] == statistics.median(values)


def test_the_text_is_a_few_lines() -> None:
    lines = render(taken(records_of([0, 0, 1, 1, 1]), bad={3})).splitlines()
    assert lines == [
        "decodable   80.0 %: 4 of 5",
        "duration    11.0 s",
        "short side  240 to 244, median 241.5 px (224-256: 4)",
        "length      1 to 5, median 2.5 s (1-2: 1, 2-3: 1, 3-5: 1, 5-8: 1)",
        "frames      30 to 150, median 75 (16-32: 1, 32-64: 1, 64-128: 1, 128-256: 1)",
        "codecs      h264 4",
    ]
    assert render(taken(records_of([0]), bad={0})) == "decodable   0 %: 0 of 1"


@pytest.mark.parametrize(
    ("share", "text"),
    [(1, "100 %"), (0, "0 %"), (0.5, "50.0 %"), (0.9999, "99.99 %"), (0.00001, "0.001 %")],
)
def test_a_share_is_100_percent_only_if_it_is_all(share, text) -> None:
    assert percent(share) == text


def write_fingerprint(folder, found, split="train") -> str:
    folder.mkdir(exist_ok=True)
    path = fingerprint_path(str(folder), split)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(found, file)
    return path


def test_a_run_logs_what_an_earlier_check_found(tmp_path) -> None:
    records = records_of([0, 0, 1, 1])
    path = write_fingerprint(tmp_path / "b", taken(records, bad={1}))
    folders = [str(tmp_path / name) for name in "ab"]
    assert describe_check(folders, "train", records) == [
        f"checked before ({path}): 75.0 % of 4 videos decodable, 1 not"
    ]
    (clean,) = describe_check(folders, "train", [records[i] for i in (0, 2, 3)])
    assert clean == (
        f"a list cleaned by tools/check_data.py ({path}): 75.0 % of 4 videos decodable, 1 not and "
        "left out"
    )
    (other,) = describe_check(folders, "train", records[:2])
    assert other == f"{path} is of another list ({list_hash(records)}): not used"
    assert describe_check(folders, "val", records) == []
    assert describe_check(folders[:1], "train", records) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"list": {}, "check": 3}', "\x80"])
def test_a_damaged_fingerprint_stops_no_run(tmp_path, text) -> None:
    path = tmp_path / "train_fingerprint.json"
    path.write_bytes(text.encode("latin-1"))
    found = describe_check([str(tmp_path)], "train", records_of([0]))
    assert found == [f"{path} cannot be read: not used"]


def test_real_records_do(tmp_path) -> None:
    (tmp_path / "train.csv").write_text("a b.mp4 0\nc.mp4 1\n", encoding="utf-8")
    records = kinetics.read_index(str(tmp_path), "train")
    assert describe_records(records, 2)[0].startswith("2 videos of 2 classes (1 to 1 per class")
