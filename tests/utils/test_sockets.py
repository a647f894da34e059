"""Temporary folders of clusters, whose names are longer than a socket's may be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hiera_video.utils import sockets
from hiera_video.utils.errors import UserError

READS = """
import tempfile
from hiera_video.config import load_config
from hiera_video.data.build import build_loader, read_records
import sys

if __name__ == "__main__":
    before = tempfile.gettempdir()
    words = ["DATA.PATH_TO_DATA_DIR", sys.argv[1], "TRAIN.BATCH_SIZE", "2"]
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", words)
    loader = build_loader(cfg, "train", read_records(cfg, "train"))
    print(sum(len(batch) for batch in loader.batches()))
    loader.close()
    assert tempfile.gettempdir() == before
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such sockets")
@pytest.mark.parametrize("length", [sockets.LONGEST, 90])
def test_videos_are_read_with_a_temporary_folder_of_a_long_name(videos, tmp_path, length):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text(f"{videos['h264_b.mp4']} 0\n" * 4)
    short = "/tmp/" + f"hiera_video_test_{os.getpid()}_".ljust(length - 5, "x")
    os.makedirs(short)
    try:
        command = [sys.executable, "-c", READS, str(tmp_path)]
        environment = {**os.environ, "TMPDIR": short}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (ended.returncode, ended.stdout) == (0, "4\n"), ended.stderr
        assert os.listdir(short) == []
    finally:
        Path(short).rmdir()


def test_where_no_short_one_can_be_written_to_it_is_said(monkeypatch):
    monkeypatch.setattr(sockets.tempfile, "gettempdir", lambda: "/scratch/" + 80 * "x")
    monkeypatch.setattr(sockets.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="TMPDIR must have at most 71 bytes.*Try a shorter"):
        sockets.make_room_for_sockets()
