"""Format reports of `flops.report` as text: an aligned table, a markdown table, or json.

G is 1e9 and M 1e6; a FLOP is one multiply-add, as in the papers.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import simplejson

from hiera_video.flops.count import OperatorCost, StageCost
from hiera_video.flops.report import Report

STYLES = ("table", "markdown")
FORMATS = (*STYLES, "json")
# Titles of the columns that hold text. All others hold numbers and are aligned to the right.
_TEXT = ("model", "config", "input", "stage", "operator")


def render(reports: Sequence[Report], *, style: str, with_details: bool) -> str:
    """Return the reports in one of FORMATS; a single report in a table always has its details."""
    if style == "json":
        return to_json(reports)
    parts = [summary(reports, style=style)]
    if with_details or (style == "table" and len(reports) == 1):
        parts += [details(report, style=style) for report in reports]
    return "\n\n".join([*parts, not_counted(reports)])


def summary(reports: Sequence[Report], *, style: str) -> str:
    """Return a table with a row for each report; `style` is one of STYLES."""
    columns: dict[str, Callable[[Report], str]] = {"model": lambda report: report.name}
    if any(report.source for report in reports):
        columns["config"] = lambda report: report.source
    columns["input"] = lambda report: "x".join(map(str, report.clip_shape[1:]))
    if any(report.masks for report in reports):
        columns["visible units"] = lambda report: (
            f"{masks.visible_units} of {masks.all_units}" if (masks := report.masks) else "-"
        )
        columns["decoded tokens"] = lambda report: (
            f"{masks.decoded_tokens} of {masks.hidden_tokens}" if (masks := report.masks) else "-"
        )
    columns |= {
        "GFLOPs per view": lambda report: giga(report.cost.multiply_adds),
        "views": lambda report: "x".join(map(str, report.views)) if report.views else "-",
        "GFLOPs per video": lambda report: giga(report.multiply_adds_per_video),
        "parameters (M)": lambda report: mega(report.cost.parameters),
        "activations (M)": lambda report: mega(report.cost.activations),
    }
    return draw(list(columns), [[of(r) for of in columns.values()] for r in reports], style=style)


def details(report: Report, *, style: str) -> str:
    """Return tables of a report's costs by stage and by operator."""
    cost = report.cost

    def row(part: StageCost | OperatorCost, *numbers: int) -> list[str]:
        total = cost.multiply_adds
        percent = f"{100 * part.multiply_adds / total:.1f}" if total else "-"
        return [part.name, giga(part.multiply_adds), percent, *map(mega, numbers)]

    stages = [row(stage, stage.parameters, stage.activations) for stage in cost.stages]
    operators = [row(operator, operator.activations) for operator in cost.operators]
    of_stage = ["stage", "GFLOPs", "%", "parameters (M)", "activations (M)"]
    of_operator = ["operator", "GFLOPs", "%", "activations (M)"]
    return "\n\n".join(
        [
            f"{report.name}, one view",
            draw(of_stage, stages, style=style),
            draw(of_operator, operators, style=style),
        ]
    )


def not_counted(reports: Sequence[Report]) -> str:
    """Return a line for each thing the totals leave out, unknown operators first."""
    lines = []
    for report in reports:
        cost = report.cost
        if cost.unknown:
            lines.append(
                f"UNKNOWN operators in {report.name}, the total may be too low: "
                f"{_calls([cost.unknown])}"
            )
        if cost.lost_products:
            lines.append(
                f"UNKNOWN: in {report.name} the trace holds {giga(cost.products)} G multiply-adds "
                "of products, convolutions and attention, and PyTorch's own counter finds "
                f"{giga(cost.products_by_torch)} G"
            )
        if cost.uncalled_modules:
            lines.append(
                f"Modules with parameters in {report.name} that were never called as modules (an "
                "operator that uses their weights is counted in the module that runs it): "
                + ", ".join(cost.uncalled_modules)
            )
    for what, calls in (
        ("elementwise", [report.cost.elementwise for report in reports]),
        ("data movement", [report.cost.data_movement for report in reports]),
    ):
        if any(calls):
            lines.append(f"Not counted by convention, {what}, with calls: {_calls(calls)}")
    return "\n".join(lines)


def to_json(reports: Sequence[Report]) -> str:
    """Return all fields of the reports as json: plain numbers, null for unknown ones."""
    return simplejson.dumps({"models": [_plain(report) for report in reports]}, indent=2)


def draw(titles: Sequence[str], rows: Sequence[Sequence[str]], *, style: str) -> str:
    """Return `rows` under `titles` as a table in one of STYLES."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.ljust(width) if title in _TEXT else cell.rjust(width)
            for title, cell, width in zip(titles, cells, widths, strict=True)
        ]
        return f"| {' | '.join(padded)} |" if style == "markdown" else "  ".join(padded).rstrip()

    if style == "markdown":
        ends = ["-" if title in _TEXT else ":" for title in titles]
        rules = [f"{'-' * (w + 1)}{end}" for w, end in zip(widths, ends, strict=True)]
        rule = f"|{'|'.join(rules)}|"
    else:
        rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(titles), rule, *map(line, rows)])


def giga(number: int | None) -> str:
    """Return `number` in units of 1e9 with two decimals, or a dash for None."""
    return "-" if number is None else f"{number / 1e9:.2f}"


def mega(number: int) -> str:
    """Return `number` in units of 1e6 with two decimals."""
    return f"{number / 1e6:.2f}"


def _calls(of_models: Sequence[Mapping[str, int]]) -> str:
    """Return the number of calls: `add 50, gelu 24`, or `add 25..98` where models differ."""
    names = dict.fromkeys(name for calls in of_models for name in calls)
    parts = []
    for name in names:
        numbers = [calls.get(name, 0) for calls in of_models]
        low, high = min(numbers), max(numbers)
        parts.append(f"{name} {low}" if low == high else f"{name} {low}..{high}")
    return ", ".join(parts)


def _plain(report: Report) -> dict[str, Any]:
    plain = dataclasses.asdict(report)
    cost = plain.pop("cost")
    plain["multiply_adds_per_view"] = cost.pop("multiply_adds")
    plain["multiply_adds_per_video"] = report.multiply_adds_per_video
    plain["complete"] = not report.cost.incomplete
    return plain | cost
