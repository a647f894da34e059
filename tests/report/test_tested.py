"""What is read off a test's scores; N videos, K classes."""

import numpy as np
import pytest

from hiera_video.report.classes import class_rows, confusion, pictured_mistakes
from hiera_video.report.images import matrix_address, middle_frame
from hiera_video.report.parts import Missing
from hiera_video.report.tested import Scores, read_test, worst_mistakes
from hiera_video.utils.errors import UserError

NAMES = ["cat", "dog", "eel"]


def scores_of(labels, predictions, certainties, names=NAMES):
    """Scores that give each video its prediction with its certainty, the others the rest."""
    num = len(names)
    scores_NK = np.zeros((len(labels), num), np.float32)
    for video, (taken, sure) in enumerate(zip(predictions, certainties, strict=True)):
        scores_NK[video] = (1 - sure) / (num - 1)
        scores_NK[video, taken] = sure
    paths = np.array([f"/videos/{n}.mp4" for n in range(len(labels))])
    return Scores(paths, np.array(labels), scores_NK, list(names))


def test_the_surest_mistakes_come_first_and_no_hit_among_them():
    scores = scores_of([0, 0, 1, 2], [0, 1, 2, 0], [0.99, 0.6, 0.9, 0.5])
    found = worst_mistakes(scores, 2)
    assert [(m.path, m.true_class, m.predicted_class) for m in found] == [
        ("/videos/2.mp4", "dog", "eel"),
        ("/videos/1.mp4", "cat", "dog"),
    ]
    assert found[0].score == pytest.approx(0.9)
    assert found[0].true_score == pytest.approx(0.05)


def test_classes_come_best_first_with_what_they_are_mostly_taken_for():
    scores = scores_of([0, 0, 1, 1, 1], [0, 0, 2, 2, 1], [0.9] * 5)
    best, worst = class_rows(scores)  # there is no eel in this test
    assert (best.name, best.accuracy, best.num_taken) == ("cat", 1.0, 0)
    assert (worst.name, worst.num_videos, worst.taken_for, worst.num_taken) == ("dog", 3, "eel", 2)
    assert worst.accuracy == pytest.approx(1 / 3)


def test_a_small_matrix_is_cells_and_names_its_commonest_confusions():
    matrix = confusion(scores_of([0, 0, 1, 1, 1], [0, 1, 2, 2, 1], [0.9] * 5))
    assert [[cell.number for cell in row] for row in matrix.rows] == [[1, 1, 0], [0, 1, 2], [0] * 3]
    assert not matrix.address
    pairs = [(pair.true_class, pair.predicted_class, pair.number) for pair in matrix.pairs]
    assert pairs == [("dog", "eel", 2), ("cat", "dog", 1)]


def test_a_large_matrix_is_a_picture_as_opaque_as_its_shares():
    import base64
    from io import BytesIO

    from PIL import Image

    names = [f"class {k}" for k in range(50)]
    labels = list(range(50))
    matrix = confusion(scores_of(labels, labels, [0.9] * 50, names))
    assert not matrix.rows
    assert matrix.pairs == []
    shares_KK = np.array([[1.0, 0.0], [0.25, 0.75]])
    content = base64.b64decode(matrix_address(shares_KK).removeprefix("data:image/png;base64,"))
    opacity_KK = np.asarray(Image.open(BytesIO(content)).convert("RGBA"))[..., 3]
    assert opacity_KK.tolist() == [[255, 0], [128, 221]]


def test_a_mistake_whose_video_is_gone_says_so():
    (mistake,) = pictured_mistakes(scores_of([0], [1], [0.9]), 3, backend="auto")
    assert isinstance(mistake.address, Missing)
    assert "no longer exists" in mistake.address.why
    assert mistake.file_name == "videos/0.mp4"


def test_no_video_is_fetched_for_its_picture():
    with pytest.raises(UserError, match="downloads nothing"):
        middle_frame("https://videos.example/one.mp4", "auto")


def test_the_middle_frame_is_the_one_in_the_middle(videos):
    from pathlib import Path

    frame_HWC = middle_frame(str(Path(videos["h264_b.mp4"])), "auto")  # 40 frames: number 19
    bits = [
        frame_HWC[y + 4 : y + 12, x + 4 : x + 12].mean() > 128
        for y in (0, 16)
        for x in (0, 16, 32, 48)
    ]
    assert sum(int(bit) << place for place, bit in enumerate(bits)) == 19


def damaged(folder, content):
    (folder / "test_scores.npz").write_bytes(content)
    return read_test(str(folder), ["test_scores.npz"])


def test_damaged_scores_leave_the_figures(make_run):
    folder = make_run("cut_off")
    whole = (folder / "test_scores.npz").read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2], b"PK" + bytes(200)):
        tested = damaged(folder, content)
        assert "damaged" in tested.scores.why
        assert tested.number("top1_acc") is not None


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.array([0, 1])},
        {"labels": np.array([0, 7, 1])},
        {"scores": np.zeros(3)},
        {"scores": np.array([object()] * 3)},
    ],
)
def test_scores_that_do_not_fit_together_are_refused(tmp_path, change):
    arrays = {"paths": np.array(["a", "b", "c"]), "labels": np.array([0, 1, 2])}
    arrays |= {"scores": np.eye(3), "class_names": np.array([], dtype=np.str_)}
    (tmp_path / "test_results.json").write_text("{}")
    np.savez(tmp_path / "test_scores.npz", **arrays)
    assert read_test(str(tmp_path), []).scores.class_names == ["0", "1", "2"]
    np.savez(tmp_path / "test_scores.npz", **(arrays | change))
    assert "damaged" in read_test(str(tmp_path), []).scores.why


def test_views_that_are_no_views_are_passed_over(tmp_path):
    table = '{"1x1": 50, "2x3": 60.5, "all": 1, "3x3": null, "4x3": -3, "5x3": 1e99}'
    (tmp_path / "test_results.json").write_text(f'{{"top1_acc_by_views": {table}}}')
    assert read_test(str(tmp_path), []).by_views() == [(1, 1, 50.0), (2, 3, 60.5)]
