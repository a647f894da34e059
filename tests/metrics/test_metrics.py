from functools import cache
from pathlib import Path

import numpy as np
import pytest
from matplotlib.font_manager import fontManager

from hiera_video import metrics
from hiera_video.metrics.build import measure_all
from hiera_video.metrics.calibration import calibration_error
from hiera_video.metrics.confusion import (
    confusion_figure,
    confusion_matrix,
    mean_class_accuracy,
    save_confusion_png,
)
from hiera_video.metrics.ensemble import VideoScores, growing_view_subsets
from hiera_video.metrics.topk import topk_accuracy
from hiera_video.utils import fonts
from hiera_video.utils.fonts import font_file


def test_topk_against_sorting():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((50, 10)), rng.integers(10, size=50)
    for k in (1, 3, 5):
        best = np.argsort(-scores, axis=1)[:, :k]
        expected = np.mean([label in row for label, row in zip(labels, best, strict=True)])
        assert topk_accuracy(scores, labels, k) == pytest.approx(expected)


def test_topk_of_equal_scores_is_chance_and_of_few_classes_one():
    scores, labels = np.ones((4, 4)), np.arange(4)
    assert topk_accuracy(scores, labels, 1) == 0.25
    assert topk_accuracy(scores, labels, 5) == 1.0
    assert np.isnan(topk_accuracy(np.zeros((0, 4)), np.zeros(0, dtype=int), 1))


def test_confusion_matrix_and_mean_class_accuracy():
    labels = np.array([0, 0, 0, 1, 2, 2])
    predictions = np.array([0, 0, 1, 1, 0, 2])
    matrix = confusion_matrix(predictions, labels, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert mean_class_accuracy(matrix) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)


@pytest.mark.parametrize("num_classes", [3, 30, 174])
def test_confusion_picture_is_a_png(tmp_path, num_classes):
    path = tmp_path / "confusion.png"
    save_confusion_png(str(path), np.eye(num_classes, dtype=np.int64))
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("error")
def test_names_that_are_no_formulas_and_in_all_scripts_are_drawn(tmp_path, monkeypatch):
    names = ["$\\frac{$", "a$b", "跳", "ok é", "\udcff", "\x1b[2J", "a\nb", "\u20d2", 70 * "l", ""]
    monkeypatch.setattr(fonts, "_font_with", cache(fonts._font_with.__wrapped__))
    fonts_here = [font for font in fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", fonts_here)  # whatever else is installed
    figure = confusion_figure(np.eye(10, dtype=np.int64), names)
    figure.savefig(tmp_path / "confusion.png")
    for labels in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        expected = [
            "$\\frac{$",
            "a$b",
            "class 2",
            "ok é",
            r"\udcff",
            r"\x1b[2J",
            r"a\nb",
            "\u20d2",
        ]
        assert [label.get_text() for label in labels] == [*expected, 39 * "l" + "…", ""]
    assert Path(font_file("ok é")).name == "DejaVuSans.ttf"
    assert Path(font_file("\u20d2")).name.startswith("STIX")  # which has what the other lacks


def test_a_video_scores_the_mean_of_its_views_and_counts_once():
    scores = VideoScores({"1x1": np.array([0]), "2x1": np.array([0, 1])})
    scores.add(7, 1, np.array([[0.2, 0.8], [0.6, 0.4]]))
    scores.add(3, 0, np.array([[1.0, 0.0], [0.5, 0.5]]))
    scores.add(7, 1, np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert scores.video_indices().tolist() == [3, 7]
    assert scores.labels().tolist() == [0, 1]
    assert scores.scores("2x1") == pytest.approx(np.array([[0.75, 0.25], [0.4, 0.6]]))
    assert scores.scores("1x1") == pytest.approx(np.array([[1.0, 0.0], [0.2, 0.8]]))


def test_growing_views_take_even_clips_and_the_centre_crop_first():
    subsets = {name: places.tolist() for name, places in growing_view_subsets(5, 3).items()}
    assert list(subsets) == [f"{t}x{s}" for s in (1, 3) for t in (1, 2, 3, 4, 5)]
    assert subsets["1x1"] == [7]
    assert subsets["2x1"] == [1, 13]
    assert subsets["3x1"] == [1, 7, 13]
    assert subsets["1x3"] == [6, 7, 8]
    assert subsets["5x3"] == list(range(15))
    assert list(growing_view_subsets(2, 1)) == ["1x1", "2x1"]
    assert all(len(set(places)) == len(places) for places in subsets.values())


def test_calibration_error_against_its_definition():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(5), size=400).astype(np.float32)
    labels = rng.integers(5, size=400)
    expected = 0.0
    for low in range(10):
        inside = [n for n in range(400) if low / 10 < scores[n].max() <= (low + 1) / 10]
        if inside:
            accuracy = np.mean([scores[n].argmax() == labels[n] for n in inside])
            confidence = np.mean([float(scores[n].max()) for n in inside])
            expected += len(inside) / 400 * abs(accuracy - confidence)
    assert calibration_error(scores, labels, num_bins=10) == pytest.approx(expected)
    assert calibration_error(np.eye(3, dtype=np.float32), np.arange(3)) == 0
    assert np.isnan(calibration_error(np.zeros((0, 3), np.float32), np.zeros(0, np.int64)))


def test_a_metric_is_a_file_of_the_folder(tmp_path, monkeypatch):
    """What takes other arguments, and what is private, is no metric."""
    (tmp_path / "fewest.py").write_text(
        "def fewest(scores_NK, labels_N, *, minimum=0):\n    return len(labels_N)\n"
        "def _hidden(scores_NK, labels_N):\n    return 1\n"
        "def other(scores_NK, labels_N, k):\n    return 2\n"
    )
    monkeypatch.setattr(metrics, "__path__", [str(tmp_path), *metrics.__path__][:1])
    assert measure_all(np.zeros((4, 2), np.float32), np.zeros(4, np.int64)) == {"fewest": 4.0}


def test_the_folder_holds_calibration_error_alone():
    scores, labels = np.eye(3, dtype=np.float32), np.arange(3)
    assert measure_all(scores, labels) == {"calibration_error": 0.0}
