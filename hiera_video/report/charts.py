"""Compute the layout of charts for `charts.html`: lines with marks, two axes, and a table.

Lengths are in units of the drawing, about a pixel each; y counts from the top.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40
_MAX_DOTS = 60  # points of a line that show their numbers on hover
_MAX_SEEN = 16  # most points of a line that are all marked; of a longer line, only the last is
_MAX_PLACES = 300  # most points of a drawn line; more would not be visible
_MAX_TABLE_ROWS = 40


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) of one run; the run's `number` selects colour, dashes and mark.

    A `faint` series is drawn in the background, without marks. `notes` holds extra text for each
    point. `part` distinguishes several series of one run.
    """

    number: int
    name: str
    points: Sequence[tuple[float, float]]
    faint: bool = False
    notes: Sequence[str] = ()
    part: str = ""

    @property
    def label(self) -> str:
        """The name in tables and summaries."""
        return f"{self.name}, {self.part}" if self.part else self.name


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: its label, how it formats numbers, and limits that it must reach."""

    label: str
    write: Callable[[float], str] = "{:.3g}".format
    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A number and its place on an axis."""

    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point with the `title` it shows on hover; a mark is drawn if `seen`."""

    x: float
    y: float
    title: str
    seen: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A series in drawing units; `path` is the value of SVG's `d` attribute."""

    number: int
    name: str
    path: str
    dots: Sequence[Dot]
    faint: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart ready to be drawn; `summary` describes it in words, `table` in numbers."""

    title: str
    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]
    summary: str
    table_head: Sequence[str]
    table: Sequence[Sequence[str]]
    frame: dict[str, float] = field(
        default_factory=lambda: {
            "width": WIDTH,
            "height": HEIGHT,
            "left": LEFT,
            "right": WIDTH - RIGHT,
            "top": TOP,
            "bottom": HEIGHT - BOTTOM,
        }
    )

    @property
    def runs(self) -> list[tuple[int, str]]:
        """The (number, name) of each run in the chart."""
        return list(dict.fromkeys((line.number, line.name) for line in self.lines))


def draw(title: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> Chart | None:
    """Lay out a chart; return None if no series has a point."""
    series = [one for one in series if one.points]
    if not series:
        return None
    x_scale = _scale(x_axis, [x for one in series for x, _ in one.points], LEFT, WIDTH - RIGHT)
    y_scale = _scale(y_axis, _heights(series), HEIGHT - BOTTOM, TOP)
    clear = [one for one in series if not one.faint] or series
    return Chart(
        title=title,
        x_label=x_axis.label,
        y_label=y_axis.label,
        x_ticks=x_scale.ticks(),
        y_ticks=y_scale.ticks(),
        lines=[_line(one, x_scale, y_scale) for one in series],
        summary=" ".join(_in_words(one, x_axis, y_axis) for one in clear),
        table_head=[x_axis.label, *(one.label for one in clear)],
        table=_table(clear, x_axis, y_axis),
    )


def nice_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Return evenly spaced round numbers from at or below `low` to at or above `high`."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step for step in (1, 2, 2.5, 5, 10) if step * power >= raw * 0.999) * power
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return at most seven round numbers from `low` to `high`, for a logarithmic axis."""
    assert 0 < low < high
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = [
            n for power in powers for digit in digits if low <= (n := digit * 10.0**power) <= high
        ]
        if len(ticks) <= 7:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 7)]


def thinned(
    points: Sequence[tuple[float, float]], number: int = _MAX_PLACES
) -> Sequence[tuple[float, float]]:
    """Reduce to about `number` points by averaging neighbours; the two ends stay as they are."""
    if len(points) <= number:
        return points
    size = math.ceil((len(points) - 2) / (number - 2))
    groups = [points[start : start + size] for start in range(1, len(points) - 1, size)]
    means = [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
    return [points[0], *means, points[-1]]


@dataclass(frozen=True, slots=True)
class _Scale:
    axis: Axis
    low: float
    high: float
    numbers: Sequence[float]
    start: float
    end: float

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.axis.log:
            value, low, high = (math.log10(number) for number in (value, low, high))
        return round(self.start + (self.end - self.start) * (value - low) / (high - low), 1)

    def ticks(self) -> list[Tick]:
        return [Tick(self.place(number), self.axis.write(number)) for number in self.numbers]


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    low = min(values) if axis.low is None else axis.low
    high = max(values) if axis.high is None else axis.high
    if axis.log:
        low, high = low / 1.15, high * 1.15
        return _Scale(axis, low, high, log_ticks(low, high), start, end)
    numbers = nice_ticks(low, high)
    return _Scale(axis, numbers[0], numbers[-1], numbers, start, end)


def _heights(series: Sequence[Series]) -> list[float]:
    """Return all heights, without the outermost hundredth of a faint line's, which is noise."""
    heights: list[float] = []
    for one in series:
        own = sorted(y for _, y in one.points)
        spare = len(own) // 100 if one.faint else 0
        heights += own[spare : len(own) - spare]
    return heights


def _line(one: Series, x_scale: _Scale, y_scale: _Scale) -> Line:
    places = [(x_scale.place(x), y_scale.place(y)) for x, y in thinned(one.points)]
    path = "M" + " ".join(f"{x:g},{y:g}" for x, y in places)
    dots = []
    if not one.faint:
        for number in _spread(len(one.points), _MAX_DOTS):
            x, y = one.points[number]
            note = f", {one.notes[number]}" if one.notes else ""
            title = (
                f"{one.name}: {y_scale.axis.write(y)}{note} "
                f"({x_scale.axis.label} {x_scale.axis.write(x)})"
            )
            seen = len(one.points) <= _MAX_SEEN or number == len(one.points) - 1
            dots.append(Dot(x_scale.place(x), y_scale.place(y), title, seen))
    return Line(one.number, one.name, path, dots, one.faint)


def _in_words(one: Series, x_axis: Axis, y_axis: Axis) -> str:
    (x0, y0), (x1, y1) = one.points[0], one.points[-1]
    if len(one.points) == 1:
        return f"{one.label}: {y_axis.write(y0)} at {x_axis.write(x0)}."
    return (
        f"{one.label}: from {y_axis.write(y0)} at {x_axis.write(x0)} "
        f"to {y_axis.write(y1)} at {x_axis.write(x1)}."
    )


def _table(series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> list[list[str]]:
    columns = [dict(one.points) for one in series]
    places = sorted({x for column in columns for x in column})
    return [
        [x_axis.write(x), *(y_axis.write(c[x]) if x in c else "" for c in columns)]
        for x in (places[number] for number in _spread(len(places), _MAX_TABLE_ROWS))
    ]


def _spread(length: int, most: int) -> list[int]:
    """Return at most `most` numbers below `length`, evenly spread, first and last included."""
    if length <= most:
        return list(range(length))
    return sorted({round(k * (length - 1) / (most - 1)) for k in range(most)})
