import csv
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest
import simplejson

from hiera_video.data.checks import scan as scan_module
from hiera_video.data.checks.fingerprint import describe_check
from hiera_video.data.datasets import kinetics, ssv2

SMALL = "--cfg configs/Demo/HIERA_MICRO.yaml --workers 1"


@pytest.fixture
def data(small_set, tmp_path):
    """A copy of the small set: 16 training videos of 8 classes, to be damaged."""
    shutil.copytree(small_set, tmp_path / "my data")
    return tmp_path / "my data"


@pytest.fixture
def check(run_tool, monkeypatch, data, tmp_path):
    """Run the tool on `data` (as `.`) with results in `out`; `words` go before KEY VALUE."""
    (tmp_path / "configs").symlink_to(os.path.abspath("configs"))
    (tmp_path / "tools").symlink_to(os.path.abspath("tools"))
    (tmp_path / "data").symlink_to(data)
    monkeypatch.chdir(tmp_path)

    def run(words="", overrides=""):
        return run_tool(
            "check_data", f"{SMALL} --output out {words} DATA.PATH_TO_DATA_DIR data {overrides}"
        )

    return run


def video_files(data):
    return [record.path for record in kinetics.read_index(str(data), "train")]


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return simplejson.load(file)


def test_a_good_split_is_written_back_whole(check, data, tmp_path) -> None:
    outcome = check()
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("train: 16 videos of 8 classes (2 to 2 per class, median 2), list")
    assert lines[1] == "decodable   100 %: 16 of 16"
    clean, own = (kinetics.read_index(str(f), "train") for f in (tmp_path / "out", data))
    assert [(os.path.realpath(r.path), r.label) for r in clean] == [(r.path, r.label) for r in own]
    assert kinetics.class_names(str(tmp_path / "out")) == kinetics.class_names(str(data))
    assert table(tmp_path / "out/train_bad.csv") == []
    found = read_json(tmp_path / "out/train_fingerprint.json")
    assert found["check"]["share_decodable"] == 1
    assert found["videos"]["frames"]["median"] == 12
    assert found["videos"]["short_side_px"]["max"] == 48
    assert found["list"]["hash"] == found["list"]["clean_hash"]


def test_bad_videos_are_listed_and_left_out(check, data, tmp_path) -> None:
    files = video_files(data)
    whole = open(files[2], "rb").read()  # noqa: SIM115
    open(files[0], "wb").close()
    os.unlink(files[1])
    with open(files[2], "wb") as file:
        file.write(whole[: len(whole) // 2])
    own = (data / "train.csv").read_bytes()
    outcome = check("--full")
    assert outcome.status == 1
    assert "decodable   81.2 %: 13 of 16" in outcome.out
    assert "bad (3), all of them in train_bad.csv:" in outcome.out
    bad = table("out/train_bad.csv")
    assert [os.path.realpath(row["path"]) for row in bad] == files[:3]
    for row, reason in zip(bad, ("is empty", "no such file", "readable"), strict=True):
        assert reason in row["reason"]
    assert (data / "train.csv").read_bytes() == own
    clean = kinetics.read_index("out", "train")
    assert [os.path.realpath(record.path) for record in clean] == files[3:]
    # What a run logs of it, with the clean list and with the old one.
    old = describe_check(["nowhere", "out"], "train", kinetics.read_index(str(data), "train"))
    assert old[0].startswith("checked before (out/train_fingerprint.json): 81.2 % of 16 videos")
    assert describe_check(["out"], "train", clean)[0].startswith("a list cleaned by tools/check_")


def test_a_second_check_decodes_only_what_has_changed(check, data) -> None:
    files = video_files(data)
    open(files[5], "wb").close()
    first = check()
    journal = open("out/train_journal.jsonl").readlines()  # noqa: SIM115
    assert len(journal) == 16
    assert check().out == first.out
    shutil.copy(files[4], files[5])
    mended = check()
    assert mended.status == 0
    with open("out/train_journal.jsonl") as file:
        added = [line for line in file if line.strip()][16:]
    assert [os.path.realpath(simplejson.loads(line)["path"]) for line in added] == files[5:6]
    check("--afresh")
    with open("out/train_journal.jsonl") as file:
        assert len(file.readlines()) == 16


def test_what_is_odd_is_noted(check, data) -> None:
    first, second, *_ = lines = (data / "train.csv").read_text().splitlines()
    path = first.rsplit(maxsplit=1)[0]
    lines = [line for line in lines if not line.endswith(" 7")]
    (data / "train.csv").write_text("\n".join([*lines, first, f"{path} 1", second]))
    outcome = check("", "DATA.NUM_FRAMES 16")
    assert outcome.status == 0
    notes = [line for line in outcome.out.splitlines() if line.startswith("note: ")]
    assert [note.split(":")[1].strip() for note in notes] == [
        "videos listed more than once (2)",
        "videos with more than one label (1)",
        "videos shorter than a clip, whose last frame is repeated (14)",
        "classes without a video (1)",
    ]
    rows = table("out/train_notes.csv")
    assert len(rows) == 2 + 1 + 14 + 1
    assert rows[-1]["path or class"] == "7 (shrinks)"
    assert len(kinetics.read_index("out", "train")) == 17  # odd is not bad


def test_without_a_config_the_list_says_how_many_classes(run_tool, data, tmp_path) -> None:
    words = f"--data-dir {{}} --split val --workers 1 --output {tmp_path}/out"
    (tmp_path / "link").symlink_to(data)
    outcome = run_tool("check_data", words.format(tmp_path / "link"))
    assert outcome.status == 0
    assert outcome.out.startswith("val: 8 videos of 8 classes")
    os.unlink(data / "classes.txt")
    lines = (data / "val.csv").read_text().splitlines()[:3]
    (data / "val.csv").write_text("\n".join(lines))
    outcome = run_tool("check_data", words.format(tmp_path / "link"))
    assert outcome.out.startswith("val: 3 videos of 3 classes")


def test_the_results_lie_in_output_dir_if_nothing_is_said(run_tool, data, tmp_path) -> None:
    (tmp_path / "link").symlink_to(data)
    words = f"DATA.PATH_TO_DATA_DIR {tmp_path}/link OUTPUT_DIR {tmp_path}/run"
    assert run_tool("check_data", f"{SMALL} --split val {words}").status == 0
    assert (tmp_path / "run/data_check/val.csv").is_file()


def test_ssv2_stays_json(check, data) -> None:
    videos = data / "20bn-something-something-v2"
    videos.mkdir()
    for number, file in enumerate(video_files(data)[:4]):
        shutil.copy(file, videos / f"{number}.mp4")
    (videos / "2.mp4").write_bytes(b"")
    entries = [{"id": str(i), "template": "Poking [something]"} for i in range(4)]
    (data / "train.json").write_text(simplejson.dumps(entries))
    (data / "labels.json").write_text('{"Holding something": "0", "Poking something": "1"}')
    outcome = check("", "TRAIN.DATASET ssv2 TEST.ENABLE False MODEL.NUM_CLASSES 2")
    assert outcome.status == 1, outcome.err
    assert not outcome.err
    clean = ssv2.read_index("out", "train", path_prefix=str(videos))
    assert [os.path.basename(record.path) for record in clean] == ["0.mp4", "1.mp4", "3.mp4"]
    assert "note: classes without a video (1): 0 (Holding something)" in outcome.out


def test_where_nothing_is_good_the_way_there_is_asked_for(check, data) -> None:
    assert check().status == 0
    outcome = check("", "DATA.PATH_PREFIX /nowhere")
    assert outcome.status == 1
    assert (
        "No video is good: are the paths of the list, and DATA.PATH_PREFIX, right?" in outcome.out
    )
    assert not os.path.exists("out/train.csv")  # nor that of the first check


def test_your_own_list_is_never_overwritten(check, run_tool, data, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train.csv").write_text("my own")
    outcome = check()
    assert outcome.status == 1
    assert "--output must be a folder without a list of your own, got 'out'" in outcome.err
    assert os.listdir("out") == ["train.csv"]
    outcome = run_tool("check_data", "--data-dir data --output data")
    assert "Try --output data/data_check" in outcome.err
    assert not (data / "train_journal.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("", 2, "one of the arguments --cfg --data-dir is required"),
        ("--data-dir x --split all", 2, "invalid choice"),
        ("--data-dir x --workers 0", 2, "--workers"),
        ("--data-dir x --time-limit-sec 0", 2, "--time-limit-sec"),
        ("--data-dir no/such/folder", 1, "DATA.PATH_TO_DATA_DIR must be the folder of train.csv"),
        ("--data-dir x DATA.DECODING_BACKEND opencv", 1, "DATA.DECODING_BACKEND"),
    ],
)
def test_what_the_user_can_put_right(run_tool, words, status, message) -> None:
    outcome = run_tool("check_data", words)
    assert outcome.status == status
    assert message in outcome.err


def test_an_output_that_cannot_be_made_is_told(check, tmp_path) -> None:
    (tmp_path / "out").write_text("a file")
    outcome = check()
    assert outcome.status == 1
    assert outcome.err.startswith("error: --output must be a folder that can be made, got 'out'")


HANGS = """
import os, time
from hiera_video.data.decoders import open_video as open_real

def open_video(path, backend="auto"):
    time.sleep(100 if "moves_up" in path else 0)
    return open_real(path, backend=backend)
"""


def test_a_video_over_its_time_is_bad(check, data, tmp_path, monkeypatch) -> None:
    (tmp_path / "hanging_decoder.py").write_text(HANGS)
    monkeypatch.syspath_prepend(tmp_path)
    import hanging_decoder

    monkeypatch.setattr(scan_module, "open_video", hanging_decoder.open_video)
    outcome = check("--time-limit-sec 1.5")
    assert outcome.status == 1
    assert "decodable   87.5 %: 14 of 16" in outcome.out
    assert all("moves_up" in row["path"] for row in table("out/train_bad.csv"))
    del sys.modules["hanging_decoder"]


def children(pid):
    """Return the processes below one, by /proc."""
    found, todo = [], [pid]
    while todo:
        try:
            with open(f"/proc/{todo[-1]}/task/{todo.pop()}/children") as file:
                below = [int(word) for word in file.read().split()]
        except OSError:
            continue
        found += below
        todo += below
    return found


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_says_how_to_go_on_and_leaves_nothing_behind(data, tmp_path) -> None:
    """On a terminal of its own, as a person would: the whole group of processes hears Ctrl-C."""
    (tmp_path / "slow_decoder.py").write_text(
        HANGS.replace("100 if", "0 if").replace("else 0", "else 0.3")
    )
    (tmp_path / "check.py").write_text(
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import slow_decoder\n"
        "from hiera_video.data.checks import scan\n"
        "if __name__ == '__main__':\n"
        "    scan.open_video = slow_decoder.open_video\n"
        "    runpy.run_path('tools/check_data.py', run_name='__main__')\n"
    )
    command = [sys.executable, str(tmp_path / "check.py")]
    words = ["--data-dir", str(data), "--workers", "2", "--output", str(tmp_path / "out")]
    master, slave = pty.openpty()
    process = subprocess.Popen([*command, *words], stderr=slave, start_new_session=True)
    os.close(slave)
    journal = tmp_path / "out/train_journal.jsonl"
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_text().count("\n") < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    below = children(process.pid)
    assert below
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    said = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "of 16 videos are checked; the same command goes on from there" in said
    assert "Traceback" not in said
    deadline = time.monotonic() + 15
    while any(map(is_running, below)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
