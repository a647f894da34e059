import numpy as np
import pytest

from hiera_video.data.transforms.crops import draw_box


def test_boxes_lie_inside_and_keep_area_and_aspect():
    rng = np.random.default_rng(0)
    for _ in range(300):
        box = draw_box(120, 200, area=(0.1, 0.4), aspect=(0.5, 2.0), rng=rng)
        assert box is not None
        assert box.top >= 0
        assert box.left >= 0
        assert box.top + box.height <= 120
        assert box.left + box.width <= 200
        # Rounding to whole pixels moves both a little.
        assert 0.09 < box.height * box.width / (120 * 200) < 0.42
        assert 0.47 < box.width / box.height < 2.1


def test_aspect_is_as_often_wide_as_tall_and_area_is_uniform():
    rng = np.random.default_rng(1)
    boxes = [draw_box(200, 200, area=(0.1, 0.3), aspect=(1 / 3, 3.0), rng=rng) for _ in range(2000)]
    wide = np.mean([box.width > box.height for box in boxes])
    areas = np.array([box.width * box.height for box in boxes]) / 40000
    assert wide == pytest.approx(0.5, abs=0.04)
    assert areas.mean() == pytest.approx(0.2, abs=0.005)
    assert np.quantile(areas, 0.25) == pytest.approx(0.15, abs=0.01)


def test_every_place_is_reached_up_to_the_last_row_and_column():
    rng = np.random.default_rng(2)
    boxes = [draw_box(4, 4, area=(0.25, 0.25), aspect=(1.0, 1.0), rng=rng) for _ in range(200)]
    assert {(box.top, box.left) for box in boxes} == {(y, x) for y in range(3) for x in range(3)}


def test_shape_that_never_fits_gives_none():
    rng = np.random.default_rng(3)
    assert draw_box(2, 400, area=(0.9, 1.0), aspect=(1.0, 1.0), rng=rng) is None
