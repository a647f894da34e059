import pytest

from hiera_video.config import load_config
from hiera_video.data.build import read_records
from hiera_video.data.datasets import hmdb51
from hiera_video.data.records import NO_LABEL, RecordError, VideoRecord

ODD = "#20_(à)[x] !_wave_u_cm_np1_fr_med_0.avi"  # the release has names like it


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "wave_test_split1.txt", f"{ODD} 1 \nb.avi 2 \nc.avi 0 \n")
    write(tmp_path / "brush_hair_test_split1.txt", "d.avi 2 \r\ne.avi 1 \r\n")
    write(tmp_path / "wave_test_split2.txt", "c.avi 1 \n")
    write(tmp_path / "brush_hair_test_split2.txt", "d.avi 0 \n")
    return tmp_path


def write(path, text):
    path.write_text(text, encoding="utf-8", newline="")


def problems_of(root, split="train", **options):
    with pytest.raises(RecordError) as caught:
        hmdb51.read_index(str(root), split, **options)
    return str(caught.value).splitlines()


def test_1_is_training_2_is_test_and_0_is_neither(root):
    records = hmdb51.read_index(str(root), "train", num_classes=2)
    assert records == [
        VideoRecord(f"{root}/brush_hair/e.avi", 0, 0),
        VideoRecord(f"{root}/wave/{ODD}", 1, 1),
    ]
    for split in ("val", "test"):
        records = hmdb51.read_index(str(root), split)
        assert [record.path for record in records] == [
            f"{root}/brush_hair/d.avi",
            f"{root}/wave/b.avi",
        ]
        assert [record.label for record in records] == [0, 1]
    assert hmdb51.class_names(str(root)) == ["brush_hair", "wave"]


def test_the_config_chooses_the_split(root):
    words = f"DATA.PATH_TO_DATA_DIR {root} TEST.ENABLE False DATA.SPLIT_NUMBER 2".split()
    words += ["TRAIN.DATASET", "hmdb51"]
    records = list(read_records(load_config(None, words), "train"))
    assert records == [VideoRecord(f"{root}/wave/c.avi", 1, 0)]


def test_lists_and_videos_may_lie_as_they_are_unpacked(root):
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir()
    for file in root.glob("*.txt"):
        file.rename(lists / file.name)
    (root / "hmdb51_org").mkdir()
    assert hmdb51.read_index(str(root), "train")[0].path == f"{root}/hmdb51_org/brush_hair/e.avi"
    records = hmdb51.read_index(str(root), "train", path_prefix="/my videos")
    assert records[0].path == "/my videos/brush_hair/e.avi"


def test_pretraining_has_no_labels(root):
    records = hmdb51.read_index(str(root), "train", labelled=False, num_classes=1)
    assert [record.label for record in records] == [NO_LABEL, NO_LABEL]


def test_all_wrong_lines_are_named(root):
    write(root / "wave_test_split1.txt", "a.avi\n\nb.avi 3\nc.avi 1\n")
    first, second = problems_of(root)
    assert first.startswith(f"{root}/wave_test_split1.txt:1: ")
    assert "1 or 2, got 'a.avi'" in first
    assert second.startswith(f"{root}/wave_test_split1.txt:3: ")


def test_a_class_without_a_list_of_the_split(root):
    write(root / "wave_test_split3.txt", "a.avi 1\n")
    (problem,) = problems_of(root, split_number=3)
    assert "brush_hair_test_split3.txt must be readable" in problem


def test_lists_that_are_missing_empty_or_no_text(root, tmp_path):
    write(root / "wave_test_split2.txt", "")
    assert "mark videos of split 2 with 1, got none" in problems_of(root, split_number=2)[0]
    (root / "wave_test_split2.txt").write_bytes(b"\xff\xfe 1\n")
    assert "UTF-8" in problems_of(root, split_number=2)[0]
    (tmp_path / "other").mkdir()
    assert "CLASS_test_split1.txt" in problems_of(tmp_path / "other")[0]
    assert "DATA.PATH_TO_DATA_DIR" in problems_of("")[0]


def test_more_classes_than_the_model_has(root):
    (problem,) = problems_of(root, num_classes=1)
    assert problem.startswith("MODEL.NUM_CLASSES must be 2")
