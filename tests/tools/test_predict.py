import csv
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from hiera_video.config import load_config, to_yaml
from hiera_video.models.hiera import hiera_micro_8x64

NAMES = ["turns", "left", "right", "up", "down", "grows", "shrinks", "stands"]
CLIPS = "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32"


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    """Save an untrained classifier as a run does, with other things at will."""

    def make(**more):
        cfg = load_config("configs/Demo/HIERA_MICRO.yaml", CLIPS.split())
        torch.manual_seed(0)
        model = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8)
        content = {"model_state": model.state_dict(), "cfg": to_yaml(cfg), "class_names": NAMES}
        path = tmp_path_factory.mktemp("run") / "checkpoint_epoch_00001.pyth"
        torch.save(content | more, path)
        return path

    return make


@pytest.fixture(scope="module")
def checkpoint(save):
    return save()


@pytest.fixture
def predict(run_tool, checkpoint):
    return lambda line: run_tool("predict", f"{line} --checkpoint {checkpoint}")


@pytest.fixture
def video(small_set):
    return sorted(small_set.glob("val/*/00000.mp4"))[0]


ODD_FILES = (b"b\xff.mp4", b"c\x1b[31m.mp4", b"a\xff_broken\x1b[2J.mp4")
ODD_CLASSES = ["\x1b]0;title\x07", "\ud800", "new\nline", "caf\xe9", "\u202egpj", "f", "g", "h"]


@pytest.fixture(scope="module")
def odd_names(save):
    return save(class_names=ODD_CLASSES)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
@pytest.mark.parametrize("form", ["table", "csv"])
def test_odd_names_are_exact_for_programs_and_printable_for_people(
    odd_names, video, tmp_path, form, encoding
):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ODD_FILES[:2]:
        (folder / os.fsdecode(name)).write_bytes(video.read_bytes())
    (folder / os.fsdecode(ODD_FILES[2])).write_bytes(b"")
    words = [str(folder), "--checkpoint", str(odd_names), "--workers", "0", "--format", form]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "tools/predict.py", *words, "--top-k", "8"]
    done = subprocess.run(command, capture_output=True, env=environment)
    (line,) = done.stderr.splitlines()[:-1]
    assert line.startswith(b"error: ")
    assert b"a\\udcff_broken\\x1b[2J.mp4" in line
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    if form == "csv":
        names = ODD_FILES[:2] if encoding == "utf-8:strict" else (b"b\\udcff.mp4", ODD_FILES[1])
        for name in names:
            assert os.fsencode(folder) + b"/" + name + b"," in done.stdout
        assert b",\x1b]0;title\x07," in done.stdout
    else:
        assert b"\x1b" not in done.stdout
        assert len(lines) == 2 * 9
        assert lines[0] == os.fsencode(folder) + b"/b\\udcff.mp4"
        shown = {row.split()[0] for row in lines[1:9]}
        assert {b"\\x1b]0;title\\x07", b"\\ud800", b"new\\nline", b"\\u202egpj"} < shown


@pytest.mark.parametrize("words", [[""], ["--stream", ""]])
def test_nothing_is_no_video(checkpoint, words, monkeypatch, capsys):
    """As a shell gives it for a variable that is not set."""
    monkeypatch.setattr(sys, "argv", ["predict.py", *words, "--checkpoint", str(checkpoint)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path("tools/predict.py", run_name="__main__")
    assert stop.value.code == 1
    assert "no such file" in capsys.readouterr().err


def test_a_video_becomes_a_table(predict, video):
    outcome = predict(f"{video} --top-k 3")
    assert (outcome.status, outcome.err) == (0, "")
    first, *rows = outcome.out.splitlines()
    assert first == str(video)
    assert len(rows) == 3
    shares = [float(row.split("%")[0].split()[-1]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert {row.split()[0] for row in rows} <= set(NAMES)


def test_the_formats_say_the_same(predict, video):
    (entry,) = json.loads(predict(f"{video} --top-k 8 --format json").out)
    assert entry["path"] == str(video)
    assert sum(one["score"] for one in entry["predictions"]) == pytest.approx(1, abs=1e-5)
    rows = list(csv.DictReader(io.StringIO(predict(f"{video} --top-k 8 --format csv").out)))
    assert [row["rank"] for row in rows] == list("12345678")
    assert {row["path"] for row in rows} == {str(video)}
    of_csv = [(int(r["label"]), r["name"], float(r["score"])) for r in rows]
    of_json = [(p["label"], p["name"], p["score"]) for p in entry["predictions"]]
    assert of_csv == of_json
    assert all(NAMES[label] == name for label, name, _ in of_csv)
    one_view = json.loads(predict(f"{video} --format json --clips 1").out)
    assert one_view[0]["predictions"] != entry["predictions"]


def test_a_bad_file_in_a_folder_is_named_and_left_out(predict, video, bad_videos, tmp_path):
    folder = tmp_path / "some"
    (folder / "below").mkdir(parents=True)
    for name in ("a.mp4", "below/c.mp4"):
        (folder / name).write_bytes(video.read_bytes())
    (folder / "b.mp4").write_bytes(Path(bad_videos["noise.mp4"]).read_bytes())
    (folder / "notes.txt").write_text("no video")
    outcome = predict(f"{folder} --format json --workers 0")
    assert outcome.status == 1
    entries = json.loads(outcome.out)
    assert [entry["path"] for entry in entries] == [
        str(folder / "a.mp4"),
        str(folder / "below" / "c.mp4"),
    ]
    first, last = outcome.err.splitlines()
    assert first.startswith(f"error: {folder / 'b.mp4'}: ")
    assert last == "1 of 3 videos could not be read"


def test_a_bad_file_alone_fails(predict, bad_videos):
    outcome = predict(f"{bad_videos['missing.mp4']} --format json")
    assert (outcome.status, json.loads(outcome.out)) == (1, [])
    assert outcome.err == f"error: {bad_videos['missing.mp4']}: no such file.\n"


def test_an_overlay_is_written(predict, video, tmp_path):
    out = tmp_path / "labelled.mp4"
    outcome = predict(f"{video} --overlay {out} --every 0.1 --top-k 2")
    assert (outcome.status, outcome.err) == (0, f"written: {out}\n")
    lines = outcome.out.splitlines()
    assert len(lines) > 1
    assert lines[0].startswith("    0.00 - 0.27 s  ")
    with av.open(str(video)) as original, av.open(str(out)) as container:
        frames = [sum(1 for _ in c.decode(video=0)) for c in (original, container)]
        assert frames[0] == frames[1]
        assert container.streams.video[0].width >= 480


def test_a_stream_gives_a_line_a_window(predict, video):
    outcome = predict(f"--stream {video} --top-k 1 --every 0.15")
    assert (outcome.status, outcome.err) == (0, "")
    assert [line.split(" s ")[0].split() for line in outcome.out.splitlines()] == [
        ["0.00", "-", "0.27"],
        ["0.13", "-", "0.40"],
    ]
    outcome = predict("--stream /dev/video77")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("error: --stream: there is no such device as '/dev/video77'.")


def test_lines_come_while_the_stream_is_open(checkpoint, videos):
    command = [sys.executable, "tools/predict.py", "--stream", "-", "--top-k", "1"]
    process = subprocess.Popen(
        [*command, "--format", "json", "--checkpoint", str(checkpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdin.write(Path(videos["h264_b.ts"]).read_bytes())
    process.stdin.flush()
    first = process.stdout.readline()  # and nobody has said that this is the end
    process.stdin.close()
    lines = [json.loads(line) for line in (first, *process.stdout)]
    assert process.wait() == 0
    assert [round(30 * line["start_sec"]) for line in lines] == list(range(0, 33, 4))
    assert all(len(line["predictions"]) == 1 for line in lines)


def test_classes_without_names_are_numbered_with_a_note(run_tool, save, video, tmp_path):
    path = save(class_names=None)
    outcome = run_tool("predict", f"{video} --checkpoint {path} --top-k 1")
    assert outcome.status == 0
    assert "class " in outcome.out
    assert outcome.err.startswith("note: the checkpoint does not name its classes")
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefgh"))
    outcome = run_tool("predict", f"{video} --checkpoint {path} --class-names {names}")
    assert (outcome.status, outcome.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{video} --top-k 0", "--top-k must be at least 1, got 0. Try 5."),
        ("{video} --device cuda:77", "device must be one of this machine"),
        ("{video} --class-names nothing.txt", "got 'nothing.txt', which is no file"),
        ("{video} --overlay out.avi", "--overlay must end in .mp4, got 'out.avi'."),
        ("{video} --overlay nowhere/out.mp4", "--overlay must be a file that can be written"),
        ("{folder} --overlay out.mp4", "--overlay must go with one video"),
        ("{empty}", "must be a video or a folder of videos"),
        ("--stream x --overlay out.mp4", "--overlay must go with a video file, got --stream"),
        ("{video} --overlay out.mp4 --window 1", "window_sec must be left out"),
        ("{video} --overlay out.mp4 --clips 3", "--clips must go without --overlay or --stream"),
        ("--stream {video} --crops 3", "--crops must go without --overlay or --stream"),
        ("{video} --every 0.5", "--every must go with --overlay or --stream: only a sliding clip"),
        ("{video} --window 1", "--window must go with --overlay or --stream"),
        ("{video} --model hiera_base_224", "model must be a video model"),
        ("{video} --model hiera_bass_16x224", "Did you mean hiera_base_16x224?"),
    ],
)
def test_a_wrong_option_is_one_line(predict, video, small_set, tmp_path, words, message):
    line = words.format(video=video, folder=small_set, empty=tmp_path)
    outcome = predict(line)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_one_of_video_and_stream_must_be_given(predict, video, capsys):
    for line in ("", f"{video} --stream -"):
        assert predict(line).status == 2
