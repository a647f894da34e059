import base64
import re
import shutil
import time
from html.parser import HTMLParser

import pytest

from hiera_video.engine.launch import launch
from hiera_video.report.run_files import short_names
from hiera_video.report.write import default_path, write_report
from hiera_video.utils.errors import UserError

NASTY = "<script>alert(1)</script>"


class Page(HTMLParser):
    """A page's tags, by name: their attributes; and its texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.setdefault(tag, []).append(dict(attrs))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def first_run(make_run):
    return make_run("whole")


@pytest.fixture
def whole_run(first_run, tmp_path):
    """A run that a test may damage."""
    return shutil.copytree(first_run, tmp_path / "run")


@pytest.fixture
def report(tmp_path):
    """Write a report; return its text."""

    def write(*folders, **options):
        path = tmp_path / "report.html"
        assert write_report([str(f) for f in folders], str(path), **options) == path.stat().st_size
        return path.read_text()

    return write


def test_a_real_run_is_reported_on(small_cfg, report):
    cfg = small_cfg("TEST.VIEWS_TABLE True LOG_PERIOD 100")  # too short to log an iteration
    result = launch(cfg)
    text = report(cfg.OUTPUT_DIR)
    assert 'class="missing"' not in text
    assert f"{100 * result.top1:.2f} %" in text
    assert "2 of 2 epochs" in text
    titles = re.findall(r"<figcaption>([^<]*)</figcaption>", text)
    assert titles == [
        *("Loss", "Validation, top-1", "Validation, top-5", "Learning rate", "Waiting for data"),
        *("Top-1 by number of views", "Top-1 by FLOPs"),
    ]
    num_wrong = int((result.scores_NK.argmax(1) != result.labels_N).sum())
    assert text.count("data:image/jpeg;base64,") == num_wrong > 0
    for key in ("SOLVER.MAX_EPOCH", "DATA.NUM_FRAMES"):
        assert re.search(rf"<code>{key}</code>", text)


def test_nothing_in_it_comes_from_elsewhere(make_run, report):
    page = Page(report(make_run("one"), make_run("two", pretraining=True)))
    assert "script" not in page.tags
    assert [tag["href"] for tag in page.tags["a"]] == [
        tag["href"] for tag in page.tags["a"] if tag["href"][0] == "#"
    ]
    assert all(tag["src"].startswith("data:image/") for tag in page.tags["img"])
    assert all(tag["alt"] for tag in page.tags["img"])
    assert not {"link", "iframe", "object", "use", "image"} & set(page.tags)
    policy = next(tag["content"] for tag in page.tags["meta"] if "http-equiv" in tag)
    assert "default-src 'none'" in policy


def test_every_text_is_escaped(make_run, report, tmp_path):
    nasty = 'x" onerror="alert(2)'
    folder = make_run(
        "<b>run",
        names=[NASTY, nasty, "{{ 7 * 7 }}", "& more"],
        paths=[f"/gone/{NASTY}/{nasty}.mp4" for _ in range(8)],
        right=0.2,
        not_evaluated=[(f"/{NASTY}", f"broken {NASTY}")],
        by_views={"1x1": 10, NASTY: 20},
    )
    with open(folder / "stdout.log", "a") as log:
        log.write(f"[01/02 03:04:05] hiera_video {NASTY}, torch {NASTY}, x\n")
        log.write(f"[01/02 03:04:05] stopped: {NASTY}\n")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(f"# {NASTY}\n{config}")
    text = report(folder)
    page = Page(text)
    assert "script" not in page.tags
    assert not any(
        name.startswith("on") for tags in page.tags.values() for tag in tags for name in tag
    )
    assert "{{ 7 * 7 }}" in text
    told = " ".join(page.texts)
    for said in (NASTY, f"stopped: {NASTY}", f"# {NASTY}", f"broken {NASTY}", "<b>run"):
        assert said in told


def test_several_runs_share_charts_and_tables(make_run, report):
    runs = [
        make_run("one", right=0.9),
        make_run("two", right=0.3),
        make_run("pre", pretraining=True),
    ]
    text = report(*runs)
    head = re.search(r'id="summary-table".*?</thead>', text, re.S).group()
    assert head.count('scope="col"') == 3
    charts = re.findall(r'<figure class="chart">.*?</figure>', text, re.S)
    by_title = [(re.search("<figcaption>(.*?)<", c).group(1), c) for c in charts]
    assert [title for title, _ in by_title].count("Loss") == 2  # one of each task
    top1 = dict(by_title)["Validation, top-1"]
    assert len(re.findall(r'<g class="run\d">', top1)) == 2
    assert text.count('<span class="tag">best</span>') >= 2
    assert '<code>TASK</code> <span class="tag">differs</span>' in text
    assert 'alt="reconstruction of' in text


def test_a_dozen_runs_can_be_told_apart(whole_run, tmp_path, report):
    runs = [shutil.copytree(whole_run, tmp_path / "runs" / str(n)) for n in range(12)]
    head = re.search(r'id="summary-table".*?</thead>', report(*runs, num_mistakes=0), re.S).group()
    looks = re.findall(r'class="swatch (run\d)".*?<path class="mark" d="([^"]+)"', head)
    assert len(looks) == len(set(looks)) == 12


def test_every_part_may_be_missing(make_run, report):
    folder = make_run("bare")
    parts = {
        "config.yaml": "There is no config.yaml",
        "test_scores.npz": "There is no test_scores.npz",
        "test_results.json": "no test has finished",
        "stdout.log": "There is no stdout.log",
    }
    for name, told in list(parts.items())[:-1]:
        (folder / name).unlink()
        text = report(folder)
        assert told in text
    assert "Loss" in text
    only_config = make_run("config_alone")
    for name in ("stdout.log", "test_scores.npz", "test_results.json"):
        (only_config / name).unlink()
    text = report(only_config)
    assert parts["stdout.log"] in text
    assert parts["test_results.json"] in text
    assert "no training in this folder" in text


@pytest.mark.parametrize(
    "name", ["config.yaml", "stdout.log", "test_results.json", "test_scores.npz"]
)
@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 500, b"[1, 2", b"{}"])
def test_every_part_may_be_damaged(make_run, report, name, content, whole_run):
    (whole_run / name).write_bytes(content)
    assert "<footer>" in report(whole_run, num_mistakes=1)


def test_a_pretraining_run_without_its_checkpoint_or_videos_says_so(make_run, report):
    folder = make_run("pre", pretraining=True)
    text = (folder / "config.yaml").read_text()
    (checkpoint,) = (folder / "checkpoints").iterdir()
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert "Nothing could be reconstructed" in report(folder)
    checkpoint.unlink()
    assert "There is no checkpoint" in report(folder)
    assert 'id="reconstructions"' not in report(folder, num_reconstructions=0)
    assert text == (folder / "config.yaml").read_text()


def test_a_folder_of_no_run_is_refused_and_runs_inside_it_are_named(make_run, tmp_path, report):
    shutil.copytree(make_run("one"), tmp_path / "output" / "one")
    with pytest.raises(UserError, match=r"OUTPUT_DIR must be .* Try .*output/one\."):
        report(tmp_path / "output")
    with pytest.raises(UserError, match="is not a folder"):
        report(tmp_path / "nowhere")


def test_a_file_that_cannot_be_written_is_told(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output must be a file"):
        write_report([str(make_run("one"))], str(tmp_path / "file" / "report.html"))


def test_runs_are_called_by_as_little_of_their_paths_as_tells_them_apart():
    assert short_names(["/a/one", "/a/two"]) == ["one", "two"]
    assert short_names(["/a/x/run", "/a/y/run", "/b"]) == ["x/run", "y/run", "b"]


def test_the_report_goes_where_its_runs_are():
    assert default_path(["output/one/"]) == "output/one/report.html"
    assert default_path(["output/one", "output/two"]) == "output/report.html"
    assert default_path(["output/one", "elsewhere/two"]) == "output/one/report.html"
    assert default_path(["one", "two"]) == "report.html"


@pytest.mark.slow
def test_400_classes_and_20000_videos_take_little_time_and_space(make_run, report, capsys):
    folder = make_run(
        "large",
        names=[f"class number {k}" for k in range(400)],
        paths=[f"/gone/{n:05d}.mp4" for n in range(20_000)],
        epochs=800,
    )
    start = time.process_time()
    text = report(folder)
    assert time.process_time() - start < 20
    assert len(text) < 1_000_000
    assert text.count("<td") < 5000  # no cell for each pair of classes
    (picture,) = re.findall(r'<img class="matrix" src="data:image/png;base64,([^"]+)"', text)
    assert base64.b64decode(picture).startswith(b"\x89PNG")
