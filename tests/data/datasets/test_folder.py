import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hiera_video.data.datasets import folder
from hiera_video.data.records import NO_LABEL, RecordError, VideoRecord


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.fixture
def root(tmp_path):
    touch(tmp_path, "train/žluťoučký kůň/b c.mp4", "train/žluťoučký kůň/a.WEBM")
    touch(tmp_path, "train/jump/2.mkv", "train/jump/deeper/1.avi", "train/jump/10.mp4")
    touch(tmp_path, "train/jump/.hidden.mp4", "train/jump/notes.txt", "train/.cache/x.mp4")
    touch(tmp_path, "val/žluťoučký kůň/v.mp4")
    return tmp_path


def problems_of(root, split="train", **options):
    with pytest.raises(RecordError) as caught:
        folder.read_index(str(root), split, **options)
    return str(caught.value).splitlines()


def test_classes_are_the_folders_of_train_by_name_and_the_order_is_stable(root):
    records = folder.read_index(str(root), "train", num_classes=2)
    paths = ["jump/10.mp4", "jump/2.mkv", "jump/deeper/1.avi"]
    paths += ["žluťoučký kůň/a.WEBM", "žluťoučký kůň/b c.mp4"]
    assert records == [
        VideoRecord(f"{root}/train/{path}", int(index > 2), index)
        for index, path in enumerate(paths)
    ]
    assert folder.class_names(str(root)) == ["jump", "žluťoučký kůň"]


def test_a_class_keeps_its_number_where_a_split_lacks_others(root):
    records = folder.read_index(str(root), "val")
    assert records == [VideoRecord(f"{root}/val/žluťoučký kůň/v.mp4", 1, 0)]


def test_a_class_that_train_lacks_is_an_error(root):
    touch(root, "val/run/1.mp4", "val/sit/1.mp4")
    first, second = problems_of(root, "val")
    assert first.startswith(f"{root}/val/run: its class must be in train/")
    assert second.startswith(f"{root}/val/sit: ")


def test_classes_txt_numbers_the_classes_also_without_train(tmp_path):
    touch(tmp_path, "test/a/1.mp4", "test/c/1.mp4")
    assert "train/, whose folders are the classes" in problems_of(tmp_path, "test")[0]
    (tmp_path / "classes.txt").write_text("c\nb\na\n")
    records = folder.read_index(str(tmp_path), "test")
    assert [record.label for record in records] == [0, 2]
    assert folder.class_names(str(tmp_path)) == ["c", "b", "a"]


def test_a_class_of_train_without_a_video_is_an_error(root):
    touch(root, "train/empty/readme.txt")
    (problem,) = problems_of(root)
    assert problem.startswith(f"{root}/train/empty: must be a folder with a video")


def test_a_video_beside_the_class_folders_is_an_error_but_not_in_pretraining(root):
    touch(root, "train/loose.mp4")
    (problem,) = problems_of(root)
    assert problem.startswith(f"{root}/train/loose.mp4: a video must be in the folder of its class")
    records = folder.read_index(str(root), "train", labelled=False)
    assert len(records) == 6
    assert {record.label for record in records} == {NO_LABEL}
    assert [record.video_index for record in records] == list(range(6))


def test_links_to_folders_are_followed(root, tmp_path_factory):
    far = tmp_path_factory.mktemp("far")
    touch(far, "1.mp4")
    (root / "train" / "linked").symlink_to(far)
    (far / "circle").symlink_to(far)
    records = folder.read_index(str(root), "train")
    assert records[3].path == f"{root}/train/linked/1.mp4"
    assert len(records) == 6


def test_folders_that_are_missing_or_hold_no_videos(root):
    assert "lacks it" in problems_of(root, "test")[0]
    assert "DATA.PATH_TO_DATA_DIR" in problems_of("")[0]
    touch(root, "test/jump/readme.txt")
    assert "must hold videos, got no file that ends in" in problems_of(root, "test")[0]


def test_more_classes_than_the_model_has_and_a_prefix(root):
    assert problems_of(root, num_classes=1)[0].startswith("MODEL.NUM_CLASSES must be 2")
    assert "DATA.PATH_PREFIX must be empty" in problems_of(root, path_prefix="/x")[0]


READ = """
import os, sys
from hiera_video.data.datasets import folder
from hiera_video.data.records import RecordError
if os.geteuid() == 0:
    os.seteuid(65534)  # root may read everything
for labelled in (True, False):
    try:
        folder.read_index(sys.argv[1], "train", labelled=labelled)
    except RecordError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has other permissions")
@pytest.mark.parametrize("closed", ["train", "train/jump", "train/jump/deeper"])
def test_a_folder_that_may_not_be_read_is_named(root, closed):
    temporary = Path(tempfile.gettempdir()).resolve()
    for parent in (root, *root.parents):
        if temporary in parent.parents:
            parent.chmod(0o755)  # pytest's own folders are closed to others
    (root / closed).chmod(0)
    try:
        command = [sys.executable, "-c", READ, str(root)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        (root / closed).chmod(0o755)
    path = os.path.join(root, closed)
    line = f"{path} must be a folder that can be read, got: Permission denied."
    assert shown.splitlines() == [line, line]
