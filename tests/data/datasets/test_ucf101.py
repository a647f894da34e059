import os

import pytest

from hiera_video.config import load_config
from hiera_video.data.build import read_class_names, read_records
from hiera_video.data.datasets import ucf101
from hiera_video.data.records import NO_LABEL, RecordError, VideoRecord
from hiera_video.utils.errors import UserError

CLASSES = "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n3 Archery\r\n"
TRAIN = "Archery/v_Archery_g08_c01.avi 3\r\nApplyLipstick/v_ApplyLipstick_g08_c01.avi 2\r\n"
TEST = "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\r\n"


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "classInd.txt", CLASSES)
    write(tmp_path / "trainlist01.txt", TRAIN)
    write(tmp_path / "testlist01.txt", TEST)
    write(tmp_path / "trainlist02.txt", "Archery/other.avi 3\n")
    return tmp_path


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


def problems_of(root, split="train", **options):
    with pytest.raises(RecordError) as caught:
        ucf101.read_index(str(root), split, **options)
    return str(caught.value).splitlines()


def test_labels_count_from_0_and_paths_are_relative_to_the_folder(root):
    records = ucf101.read_index(str(root), "train", num_classes=3)
    assert records == [
        VideoRecord(f"{root}/Archery/v_Archery_g08_c01.avi", 2, 0),
        VideoRecord(f"{root}/ApplyLipstick/v_ApplyLipstick_g08_c01.avi", 1, 1),
    ]
    assert ucf101.class_names(str(root)) == ["ApplyEyeMakeup", "ApplyLipstick", "Archery"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_val_and_test_are_the_test_list_whose_class_is_the_folder(root, split):
    (record,) = ucf101.read_index(str(root), split)
    assert record == VideoRecord(f"{root}/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 0, 0)


def test_lists_and_videos_may_lie_as_they_are_unpacked(root):
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    for file in root.glob("*.txt"):
        file.rename(lists / file.name)
    (root / "UCF-101").mkdir()
    records = ucf101.read_index(str(root), "train")
    assert records[0].path == f"{root}/UCF-101/Archery/v_Archery_g08_c01.avi"
    records = ucf101.read_index(str(root), "train", path_prefix="/my videos")
    assert records[0].path == "/my videos/Archery/v_Archery_g08_c01.avi"


def test_the_config_chooses_the_split(root):
    words = f"DATA.PATH_TO_DATA_DIR {root} TRAIN.DATASET ucf101 TEST.ENABLE False".split()
    words += ["MODEL.NUM_CLASSES", "3"]
    cfg = load_config(None, [*words, "DATA.SPLIT_NUMBER", "2"])
    assert [record.path for record in read_records(cfg, "train")] == [f"{root}/Archery/other.avi"]
    assert read_class_names(cfg, "train") == ["ApplyEyeMakeup", "ApplyLipstick", "Archery"]
    cfg = load_config(None, [*words, "DATA.SPLIT_NUMBER", "3"])
    with pytest.raises(RecordError, match=r"trainlist03\.txt"):
        read_records(cfg, "train")


def test_a_data_set_with_one_split_refuses_another(root):
    (root / "train.csv").write_text("a.mp4 0\n")
    cfg = load_config(None, ["DATA.PATH_TO_DATA_DIR", str(root), "DATA.SPLIT_NUMBER", "2"])
    with pytest.raises(UserError, match=r"SPLIT_NUMBER must be 1 for kinetics.*got 2"):
        read_records(cfg, "train")


def test_pretraining_needs_no_classes(root):
    (root / "classInd.txt").unlink()
    records = ucf101.read_index(str(root), "train", labelled=False, num_classes=1)
    assert [record.label for record in records] == [NO_LABEL, NO_LABEL]
    assert records[0].path == f"{root}/Archery/v_Archery_g08_c01.avi"


def test_all_wrong_lines_are_named(root):
    write(root / "trainlist01.txt", "Archery/a.avi 3\nArchery/b.avi 2\n\nFencing/c.avi 3\nd.avi\n")
    first, second, third = problems_of(root)
    assert first.startswith(f"{root}/trainlist01.txt:2: ")
    assert "Archery in classInd.txt, 3, got 2" in first
    assert second.startswith(f"{root}/trainlist01.txt:4: ")
    assert "got 'Fencing'" in second
    assert third.startswith(f"{root}/trainlist01.txt:5: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 A\n3 B\n", "number its 2 classes from 1"),
        ("", "number its 0 classes"),
        ("1 A\n2 A\n", "classInd.txt:2: the class 'A' is there twice"),
        ("1 A\nB\n", "classInd.txt:2: a line must be `number Class`"),
    ],
)
def test_classes_that_are_not_numbered_from_1(root, text, words):
    write(root / "classInd.txt", text)
    assert words in problems_of(root)[0]


def test_more_classes_than_the_model_has(root):
    (problem,) = problems_of(root, num_classes=2)
    assert problem.startswith("MODEL.NUM_CLASSES must be 3")


def test_files_that_are_missing_empty_or_no_text(root):
    write(root / "testlist01.txt", "\n")
    assert "got none" in problems_of(root, "test")[0]
    (root / "testlist01.txt").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in problems_of(root, "test")[0]
    os.unlink(root / "testlist01.txt")
    assert "testlist01.txt" in problems_of(root, "val")[0]
    assert "DATA.PATH_TO_DATA_DIR" in problems_of("")[0]
