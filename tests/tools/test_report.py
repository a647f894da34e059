import os

import pytest

from hiera_video.config import load_config, to_yaml
from hiera_video.report.write import write_report


@pytest.fixture
def run_folder(tmp_path):
    """The folder of a run of which the config alone is left."""
    folder = tmp_path / "output"
    folder.mkdir()
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", ["OUTPUT_DIR", str(folder)])
    (folder / "config.yaml").write_text(to_yaml(cfg))
    return folder


def test_a_report_is_written_into_the_run_and_its_path_is_told(run_tool, run_folder):
    outcome = run_tool("report", str(run_folder))
    assert outcome.status == 0, outcome.err
    assert f"report: {run_folder / 'report.html'}" in outcome.out
    assert "hiera_micro_8x64" in (run_folder / "report.html").read_text()


def test_the_page_goes_where_it_is_asked_to(run_tool, run_folder, tmp_path):
    outcome = run_tool("report", f"{run_folder} --output {tmp_path / 'page.html'}")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert not (run_folder / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nowhere", "OUTPUT_DIR must be the folder of a run, got 'nowhere'"),
        ("{run} --mistakes -1", "--mistakes must be at least 0, got -1"),
        ("{run} --output {run}/no/folder.html", "--output must be a file that can be written"),
    ],
)
def test_a_mistake_is_told_in_one_line(run_tool, run_folder, words, told):
    outcome = run_tool("report", words.format(run=run_folder))
    assert outcome.status == 1
    assert outcome.err.startswith(f"error: {told}")
    assert outcome.err.count("\n") == 1


def test_a_name_that_is_no_text_is_shown_as_well_as_it_can_be(run_folder, tmp_path):
    odd = run_folder.rename(tmp_path / os.fsdecode(b"b\xff"))
    write_report([str(odd)], str(odd / "report.html"))
    assert "<h1>b?</h1>" in (odd / "report.html").read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_told(run_tool, tmp_path):
    (tmp_path / "locked").mkdir(mode=0)
    outcome = run_tool("report", f"{tmp_path}/locked")
    assert outcome.status == 1
    assert "OUTPUT_DIR must be a folder that can be read" in outcome.err
