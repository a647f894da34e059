"""Show the results of sweeps as a table and as a picture."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hiera_video.utils import disk
from hiera_video.utils.errors import UserError

_COLOURS = {"pretrained": "#4e79a7", "scratch": "#f28e2b"}


@dataclass(frozen=True, slots=True)
class Point:
    """The results of one value and start over its seeds; seconds and accuracies are means."""

    sweep: str
    value: str
    start: str
    top1: tuple[float, ...]
    training_sec: float
    gflops: float

    @property
    def mean(self) -> float:
        """The mean top-1."""
        return statistics.mean(self.top1)

    @property
    def spread(self) -> float:
        """The standard deviation of top-1 over seeds, 0 for a single one."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else 0.0


def points(lines: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Gather lines of results by sweep, value and start, in the order of their first line."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["sweep"], line["value"], line["start"]), []).append(line)
    return [
        Point(
            *key,
            top1=tuple(line["top1"] for line in group),
            training_sec=statistics.mean(
                line["train_sec"] + line.get("pretrain_sec", 0.0) for line in group
            ),
            gflops=group[0]["gflops"],
        )
        for key, group in groups.items()
    ]


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return a markdown table: a row for each value and start, mean and spread over seeds."""
    rows = [
        "| sweep | value | start | top-1, % | seeds | training, s | GFLOPs |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for point in points(lines):
        spread = f" ± {point.spread:.1f}" if len(point.top1) > 1 else ""
        rows.append(
            f"| {point.sweep} | {point.value} | {point.start} | {point.mean:.1f}{spread} | "
            f"{len(point.top1)} | {point.training_sec:.0f} | {point.gflops:.3g} |"
        )
    return "\n".join(rows)


def draw(lines: Sequence[Mapping[str, Any]], path: str) -> None:
    """Draw top-1 by the value of a sweep, by training time, and by GFLOPs where they differ.

    Raises:
        UserError: there are no results of exactly one sweep.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = points(lines)
    names = list(dict.fromkeys(point.sweep for point in found))
    if len(names) != 1:
        raise UserError(
            f"--plot must have results of one sweep, got {', '.join(names) or 'none'}. Try naming "
            "one sweep's file."
        )
    costs = {"training, seconds measured": [p.training_sec for p in found]}
    if len({p.gflops for p in found}) > 1:
        costs["GFLOPs of a view"] = [p.gflops for p in found]
    figure = Figure(figsize=(5 * (1 + len(costs)), 3.6), dpi=120, layout="constrained")
    by_value, *by_cost = figure.subplots(1, 1 + len(costs), sharey=True)
    values = list(dict.fromkeys(point.value for point in found))
    for start in dict.fromkeys(point.start for point in found):
        mine = [number for number, point in enumerate(found) if point.start == start]
        style = {"marker": "o", "capsize": 3, "label": start, "color": _COLOURS.get(start)}
        means, spreads = [found[n].mean for n in mine], [found[n].spread for n in mine]
        places = [values.index(found[n].value) for n in mine]
        by_value.errorbar(places, means, yerr=spreads, **style)
        for axes, cost in zip(by_cost, costs.values(), strict=True):
            axes.errorbar([cost[n] for n in mine], means, yerr=spreads, linestyle="", **style)
            for n in mine:
                place = (cost[n], found[n].mean)
                axes.annotate(f" {found[n].value}", place, fontsize=8, va="bottom")
    by_value.set_xticks(range(len(values)), values)
    by_value.set_xlabel(names[0])
    by_value.set_ylabel("top-1, %")
    for axes, title in zip(by_cost, costs, strict=True):
        axes.set_xlabel(title)
    for axes in (by_value, *by_cost):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    by_value.legend(frameon=False)
    canvas = FigureCanvasAgg(figure)
    try:
        disk.write_atomic(path, lambda file: canvas.print_png(file, metadata={"Software": ""}))
    except OSError as error:
        raise UserError(f"--plot: {path!r} could not be written ({error}).") from None
