import re
from itertools import pairwise

import pytest

from hiera_video.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Series,
    draw,
    log_ticks,
    nice_ticks,
    thinned,
)

X, Y = Axis("epoch"), Axis("loss")


def places(line):
    return [tuple(map(float, pair.split(","))) for pair in re.findall(r"[\d.]+,[\d.]+", line.path)]


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (0.001, 0.0042), (-3, 7), (1e-9, 2e-9), (12.4, 98765), (5, 5), (0, 0), (0, 5e-324)],
)
def test_ticks_are_round_even_and_reach_over_the_data(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 8
    steps = {f"{later - earlier:.6g}" for earlier, later in pairwise(ticks)}
    assert len(steps) == 1
    assert re.fullmatch(r"(1|2|2\.5|5)(\.0+)?e[+-]\d+", f"{float(steps.pop()):.1e}")


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.5), (3, 40), (102, 1530), (0.01, 1e6)])
def test_ticks_of_a_logarithmic_axis_are_round_and_few(low, high):
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)


def test_points_lie_in_the_frame_where_their_numbers_say():
    chart = draw("A", [Series(0, "run", [(0, 0), (5, 5), (10, 10)])], X, Y)
    (line,) = chart.lines
    left, middle, right = places(line)
    assert left == (LEFT, HEIGHT - BOTTOM)
    assert right == (WIDTH - RIGHT, TOP)
    assert middle == pytest.approx([(left[0] + right[0]) / 2, (left[1] + right[1]) / 2], abs=0.1)
    assert [dot.title for dot in line.dots][1] == "run: 5 (epoch 5)"


def test_a_logarithmic_axis_gives_equal_room_to_equal_ratios():
    axis = Axis("GFLOPs", log=True)
    chart = draw("A", [Series(0, "run", [(1, 0), (10, 1), (100, 2)])], axis, Y)
    x0, x1, x2 = (x for x, _ in places(chart.lines[0]))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)


def test_series_of_nothing_make_no_chart():
    assert draw("A", [Series(0, "run", [])], X, Y) is None


def test_one_point_makes_one():
    chart = draw("A", [Series(0, "run", [(1, 0.5)])], X, Y)
    assert len(chart.lines[0].dots) == 1
    assert chart.summary == "run: 0.5 at 1."


def test_many_points_are_thinned_to_means_between_the_two_ends():
    points = [(float(n), float(n % 2)) for n in range(10_001)]
    few = thinned(points)
    assert len(few) <= 301
    assert (few[0], few[-1]) == (points[0], points[-1])
    assert all(abs(y - 0.5) < 0.05 for _, y in few[1:-2])
    chart = draw("A", [Series(0, "run", points)], X, Y)
    assert len(places(chart.lines[0])) == len(few)
    assert len(chart.lines[0].dots) <= 60
    assert len(chart.table) <= 40


def test_an_outlier_of_single_iterations_does_not_flatten_the_rest():
    points = [(float(n), 1.0) for n in range(500)] + [(500.0, 1e9)]
    series = [Series(0, "run", points, faint=True), Series(0, "run", [(500, 1.0)])]
    chart = draw("A", series, X, Y)
    assert float(chart.y_ticks[-1].text) < 10
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in places(chart.lines[0]))


def test_the_table_puts_runs_beside_each_other():
    series = [Series(0, "a", [(1, 0.1), (2, 0.2)]), Series(1, "b", [(2, 0.4)])]
    chart = draw("A", series, X, Y)
    assert chart.table_head == ["epoch", "a", "b"]
    assert chart.table == [["1", "0.1", ""], ["2", "0.2", "0.4"]]
