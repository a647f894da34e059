import json
import os

import pytest

from hiera_video.data.datasets import kinetics, ssv2
from hiera_video.data.prepare.sources import read_source
from hiera_video.data.records import NO_LABEL, RecordError, VideoRecord
from hiera_video.utils.errors import UserError

LABELS = {"Poking something so that it falls over": "1", "Holding something": "0"}


def write_csv(folder, text: str, split: str = "train") -> str:
    (folder / f"{split}.csv").write_text(text, encoding="utf-8")
    return str(folder)


def problems_of(folder, text: str, **options) -> list[str]:
    with pytest.raises(UserError) as caught:
        kinetics.read_index(write_csv(folder, text), "train", **options)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("a.mp4 3", "a.mp4", 3),
        ("a.mp4,3", "a.mp4", 3),
        ("a.mp4\t3", "a.mp4", 3),
        ("a.mp4 , 3  ", "a.mp4", 3),
        ("  my clips/a b.mp4 12", "my clips/a b.mp4", 12),
        ("my clips/a, b.mp4,12", "my clips/a, b.mp4", 12),
        ('"my clips/a, b.mp4",12', "my clips/a, b.mp4", 12),
        ('"my clips/a, b.mp4","12"', "my clips/a, b.mp4", 12),
        ('"a.mp4", " 3 "', "a.mp4", 3),
        ('"a ""b"", c.mp4"\t"3"', 'a "b", c.mp4', 3),
        ('a.mp4,"3"', "a.mp4", 3),
        ('"a" b.mp4 3', '"a" b.mp4', 3),
        ("clip 7 0", "clip 7", 0),
        ("žluťoučký/kůň.mp4 1", "žluťoučký/kůň.mp4", 1),
    ],
)
def test_kinetics_lines(tmp_path, line, path, label) -> None:
    records = kinetics.read_index(write_csv(tmp_path, line + "\r\n"), "train")
    assert records == [VideoRecord(os.path.join(tmp_path, path), label, 0)]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("a.mp4", "a.mp4"),
        ("a.mp4 3", "a.mp4"),
        ("a.mp4,999", "a.mp4"),
        ("a.mp4\t-1", "a.mp4"),
        ("my clips/a b.mp4", "my clips/a b.mp4"),
        ("my clips/a b.mp4 3", "my clips/a b.mp4"),
        ('"my clips/a, b.mp4"', "my clips/a, b.mp4"),
        ('"my clips/a, b.mp4",3', "my clips/a, b.mp4"),
        ('"my clips/a, b.mp4","3"', "my clips/a, b.mp4"),
        ("a.mp4 0,1", "a.mp4"),
        ('"a.mp4","0,1"', "a.mp4"),
        ("my clips/a, b.mp4", "my clips/a, b.mp4"),
        ("clip 7 0", "clip 7"),
    ],
)
def test_kinetics_lines_without_labels_are_paths(tmp_path, line, path) -> None:
    folder = write_csv(tmp_path, f"first.mp4\n\n{line}\r\n")
    records = kinetics.read_index(folder, "train", num_classes=2, labelled=False)
    assert records == [
        VideoRecord(os.path.join(tmp_path, "first.mp4"), NO_LABEL, 0),
        VideoRecord(os.path.join(tmp_path, path), NO_LABEL, 1),
    ]


@pytest.mark.parametrize(
    "header",
    ["path", "Path Label", '"video","label"', "\ufefffilename\tclass", "label,video_id,split"],
)
def test_kinetics_without_labels_refuses_a_header(tmp_path, header) -> None:
    (problem,) = problems_of(tmp_path, f"{header}\na.mp4\n", labelled=False)
    assert problem.startswith(f"{tmp_path}/train.csv:1: a line must be a path, got ")
    assert problem.endswith("which looks like a header. Delete the line.")


@pytest.mark.parametrize("line", ["clip", "path label", "path 0", "clip 7", "video.mp4", "a/path"])
def test_kinetics_without_labels_takes_no_path_for_a_header(tmp_path, line) -> None:
    if line in ("clip", "path label"):  # words alone are paths where there is such a file
        (tmp_path / line).touch()
    folder = write_csv(tmp_path, f"{line}\nb.mp4\n")
    assert len(kinetics.read_index(folder, "train", labelled=False)) == 2
    folder = write_csv(tmp_path, "b.mp4\npath label\n")  # a header stands at the beginning
    assert len(kinetics.read_index(folder, "train", labelled=False)) == 2


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_kinetics_without_labels_needs_videos_still(tmp_path, text) -> None:
    (problem,) = problems_of(tmp_path, text, labelled=False)
    assert "empty" in problem


def test_kinetics_without_labels_takes_a_prefix_and_leaves_urls(tmp_path) -> None:
    folder = write_csv(tmp_path, "a.mp4\n/abs/b.mp4 1\nhttps://host/c.mp4\n")
    records = kinetics.read_index(folder, "train", path_prefix="/videos", labelled=False)
    paths = ["/videos/a.mp4", "/abs/b.mp4", "https://host/c.mp4"]
    assert [record.path for record in records] == paths


def test_kinetics_numbers_videos_over_blank_lines_and_a_byte_order_mark(tmp_path) -> None:
    folder = write_csv(tmp_path, "\ufeffa.mp4 1\n\n  \nb.mp4 0\n", "val")
    records = kinetics.read_index(folder, "val", num_classes=2)
    assert [(record.label, record.video_index) for record in records] == [(1, 0), (0, 1)]
    assert [os.path.basename(record.path) for record in records] == ["a.mp4", "b.mp4"]


def test_kinetics_paths_do_not_depend_on_the_working_directory(tmp_path, monkeypatch) -> None:
    folder = write_csv(tmp_path, "a.mp4 0\n/abs/b.mp4 0\nhttps://host/c.mp4 0\n")
    monkeypatch.chdir("/")
    for prefix, first in (("", os.path.join(folder, "a.mp4")), ("/videos", "/videos/a.mp4")):
        records = kinetics.read_index(folder, "train", path_prefix=prefix)
        assert [record.path for record in records] == [first, "/abs/b.mp4", "https://host/c.mp4"]


def test_kinetics_line_without_a_label_is_an_error_and_never_label_0(tmp_path) -> None:
    (problem,) = problems_of(tmp_path, "a.mp4 0\nb.mp4\n")
    assert problem.startswith(f"{tmp_path}/train.csv:2: ")
    assert "without a label" in problem
    (problem,) = problems_of(tmp_path, "a.mp4 0\nmy clips/b.mp4\n")
    assert problem.startswith(f"{tmp_path}/train.csv:2: ")
    assert "whole number, got 'clips/b.mp4'" in problem


@pytest.mark.parametrize(
    "line", ["a.mp4 0,1", "a.mp4,0,1", "a b.MP4 0 1 2", '"a.mp4","0,1"', "a.mp4 0;1", '"a.mp4" 3 4']
)
def test_kinetics_several_labels_are_an_error_with_the_reason(tmp_path, line) -> None:
    (problem,) = problems_of(tmp_path, f"b.mp4 0\n{line}\n")
    assert problem.startswith(f"{tmp_path}/train.csv:2: a line must hold one label, got several in")
    assert "a video of several classes is not supported" in problem


def make_files(folder, *names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize(
    "names",
    [("run/a.mp4", "jump/b.webm"), ("train/run/a.MP4", "val/run/b.mp4"), ("a.mkv", "notes.txt")],
)
def test_videos_without_lists_lead_to_the_tool_that_writes_them(tmp_path, names) -> None:
    make_files(tmp_path, *names)
    with pytest.raises(RecordError) as caught:
        kinetics.read_index(str(tmp_path), "train")
    message = str(caught.value)
    assert f"`python tools/prepare_videos.py {tmp_path} OUTPUT` (with --lists-only" in message
    assert read_source([str(tmp_path)]).entries  # which it can


def test_a_folder_without_videos_leads_nowhere(tmp_path) -> None:
    make_files(tmp_path, "notes/a.txt")
    (tmp_path / "val.csv").write_text("a.mp4 0\n")
    for folder in (tmp_path / "notes", tmp_path, tmp_path / "none"):
        with pytest.raises(RecordError, match="make demo") as caught:
            kinetics.read_index(str(folder), "train")
        assert "prepare_videos" not in str(caught.value)


@pytest.mark.parametrize("name", ["train.csv", "kinetics400_train.csv"])
def test_official_lists_of_kinetics_lead_to_the_tool_that_reads_them(tmp_path, name) -> None:
    text = "label,youtube_id,time_start,time_end,split\nrun,0123456789a,1,11,train\n"
    (tmp_path / name).write_text(text)
    make_files(tmp_path, "clips/0123456789a_000001_000011.mp4")
    command = f"prepare_videos.py {tmp_path / name} OUTPUT --videos FOLDER_OF_VIDEOS`"
    for data_dir in (tmp_path, tmp_path / name):
        for labelled in (True, False):
            with pytest.raises(RecordError) as caught:
                kinetics.read_index(str(data_dir), "train", labelled=labelled)
            assert command in str(caught.value)
    assert read_source([str(tmp_path / name)], videos=str(tmp_path / "clips")).entries


def test_a_first_video_of_a_name_as_in_official_lists_is_a_video(tmp_path) -> None:
    (tmp_path / "train.csv").write_text("by_youtube_id/a.mp4 0\n")
    (record,) = kinetics.read_index(str(tmp_path), "train")
    assert (record.path, record.label) == (str(tmp_path / "by_youtube_id/a.mp4"), 0)


@pytest.mark.parametrize("header", ["path,label", "path label"])
def test_kinetics_header_is_an_error_with_the_way_out(tmp_path, header) -> None:
    (problem,) = problems_of(tmp_path, f"{header}\na.mp4 0\n")
    assert problem.startswith(f"{tmp_path}/train.csv:1: ")
    assert "header, delete the line" in problem


@pytest.mark.parametrize(
    ("label", "rule"), [("5", r"0..4 (MODEL.NUM_CLASSES is 5), got 5"), ("-1", "0 or more, got -1")]
)
def test_kinetics_label_out_of_range(tmp_path, label, rule) -> None:
    (problem,) = problems_of(tmp_path, f"a.mp4 4\nb.mp4 {label}\n", num_classes=5)
    assert problem.startswith(f"{tmp_path}/train.csv:2: ")
    assert rule in problem


def test_kinetics_reports_all_bad_lines_together(tmp_path) -> None:
    lines = ["a.mp4 x" if number % 2 else "a.mp4 0" for number in range(1, 41)]
    problems = problems_of(tmp_path, "\n".join(lines))
    assert len(problems) == 11
    assert problems[1].startswith(f"{tmp_path}/train.csv:3: ")
    assert "10 more" in problems[10]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_kinetics_empty_file(tmp_path, text) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert f"{tmp_path}/train.csv" in problem
    assert "empty" in problem


def test_kinetics_file_that_is_no_text(tmp_path) -> None:
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00\x80 1\n")
    with pytest.raises(UserError, match=r"train\.csv must be UTF-8 text"):
        kinetics.read_index(str(tmp_path), "train")


def test_kinetics_missing_file_says_what_it_must_hold(tmp_path) -> None:
    with pytest.raises(UserError, match="lines of `path label`.*make demo") as caught:
        kinetics.read_index(str(tmp_path), "test")
    assert "test.csv" in str(caught.value)


def test_kinetics_class_names_are_optional(tmp_path) -> None:
    assert kinetics.class_names(str(tmp_path)) is None
    assert kinetics.class_names("") is None
    (tmp_path / "classes.txt").write_text("moves left\nturns\n\n")
    assert kinetics.class_names(str(tmp_path)) == ["moves left", "turns"]


def entry(video_id: str, template: str) -> dict[str, object]:
    return {"id": video_id, "label": "x", "template": template, "placeholders": ["a book"]}


def write_ssv2(folder, prefix: str = "something-something-v2-", **lists) -> str:
    lists.setdefault("labels", LABELS)
    lists.setdefault("train", [entry("7", "Holding [something]")])
    lists.setdefault(
        "validation",
        [
            entry("9", "Poking [something] so that [it] falls over"),
            entry("8", "Holding [something]"),
        ],
    )
    for name, content in lists.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{prefix}{name}.json").write_text(text)
    return str(folder)


@pytest.mark.parametrize("prefix", ["something-something-v2-", ""])
def test_ssv2_reads_templates_without_their_brackets(tmp_path, prefix) -> None:
    folder = write_ssv2(tmp_path, prefix)
    videos = os.path.join(folder, "20bn-something-something-v2")
    assert ssv2.read_index(folder, "train", num_classes=2) == [
        VideoRecord(os.path.join(videos, "7.webm"), 0, 0)
    ]
    validation = ssv2.read_index(folder, "val")
    assert [(os.path.basename(r.path), r.label, r.video_index) for r in validation] == [
        ("9.webm", 1, 0),
        ("8.webm", 0, 1),
    ]
    assert ssv2.class_names(folder) == [
        "Holding something",
        "Poking something so that it falls over",
    ]


def test_ssv2_without_labels_needs_neither_their_file_nor_templates(tmp_path) -> None:
    folder = write_ssv2(tmp_path, train=[{"id": "7"}, {"id": 8, "template": "Eating [it]"}])
    (tmp_path / "something-something-v2-labels.json").unlink()
    records = ssv2.read_index(folder, "train", num_classes=1, labelled=False)
    videos = os.path.join(folder, "20bn-something-something-v2")
    assert records == [
        VideoRecord(os.path.join(videos, "7.webm"), NO_LABEL, 0),
        VideoRecord(os.path.join(videos, "8.webm"), NO_LABEL, 1),
    ]


@pytest.mark.parametrize("entry", ["7", {"template": "x"}, {"id": ""}, None])
def test_ssv2_without_labels_needs_an_id_still(tmp_path, entry) -> None:
    folder = write_ssv2(tmp_path, train=[{"id": "7"}, entry])
    with pytest.raises(RecordError, match='entry 1.* must have an "id", got'):
        ssv2.read_index(folder, "train", labelled=False)


def test_ssv2_tests_on_validation(tmp_path) -> None:
    folder = write_ssv2(tmp_path)
    assert ssv2.read_index(folder, "test") == ssv2.read_index(folder, "val")


def test_ssv2_takes_whichever_file_is_there(tmp_path) -> None:
    folder = write_ssv2(tmp_path)
    for videos, prefix in (
        ("20bn-something-something-v2", ""),
        ("elsewhere", str(tmp_path / "elsewhere")),
    ):
        (tmp_path / videos).mkdir()
        (tmp_path / videos / "9.mp4").touch()
        (tmp_path / videos / "8.mp4").touch()
        (tmp_path / videos / "8.webm").touch()
        records = ssv2.read_index(folder, "val", path_prefix=prefix)
        assert [record.path for record in records] == [
            str(tmp_path / videos / "9.mp4"),
            str(tmp_path / videos / "8.webm"),
        ]


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"train": "{]"}, ["train.json:1", "must be json"]),
        ({"train": {"id": 1}}, ["train.json", "a json list"]),
        ({"train": []}, ["train.json", "a json list"]),
        ({"train": ["7"]}, ["train.json: entry 0", '"id" and a "template"']),
        ({"train": [entry("7", "Holding [something]"), {"id": "8"}]}, ["entry 1"]),
        ({"train": [entry("7", "Eating [something]")]}, ["entry 0", "id 7", "Eating something"]),
        ({"labels": ["Holding something"]}, ["labels.json", "a json object"]),
        ({"labels": {"Holding something": "zero"}}, ["labels.json", '"number"']),
        ({"labels": {"Holding something": "1"}}, ["labels.json", "0..0"]),
    ],
)
def test_ssv2_wrong_shapes_name_file_and_rule(tmp_path, lists, words) -> None:
    with pytest.raises(RecordError) as caught:
        ssv2.read_index(write_ssv2(tmp_path, **lists), "train")
    for word in words:
        assert word in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_ssv2_number_of_classes_must_fit(tmp_path) -> None:
    with pytest.raises(RecordError, match=r"MODEL\.NUM_CLASSES must be 2, .* got 1"):
        ssv2.read_index(write_ssv2(tmp_path), "train", num_classes=1)


def test_ssv2_missing_file_says_what_it_must_hold(tmp_path) -> None:
    folder = write_ssv2(tmp_path)
    (tmp_path / "something-something-v2-train.json").unlink()
    with pytest.raises(RecordError, match="a json list of .*make demo") as caught:
        ssv2.read_index(folder, "train")
    assert "something-something-v2-train.json" in str(caught.value)
    with pytest.raises(RecordError, match="labels.json"):
        ssv2.class_names(str(tmp_path / "nowhere"))
