"""Write the results of a side-by-side measurement: markdown, JSON, CSV and a picture."""

import csv
import io as memory
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import simplejson

from hiera_video.benchmark.ablation.rows import PRETRAINING_STEP, TRAINING, Published
from hiera_video.benchmark.ablation.run import Results
from hiera_video.utils import disk

_TITLES = {TRAINING: "fine-tuning step", PRETRAINING_STEP: "MAE step"}
_GIB = 2**30
_COLOUR = "#4e79a7"


@dataclass(frozen=True, slots=True)
class Speed:
    """Clips per second (median), the ratios to the reference round by round, and GiB."""

    clips_per_sec: float
    ratios: tuple[float, ...]
    gib: float | None
    batch_size: int

    @property
    def ratio(self) -> float | None:
        """The median ratio; None if the reference has no figure."""
        return statistics.median(self.ratios) if self.ratios else None


def speeds(results: Results, reference: str) -> dict[str, dict[str, Speed]]:
    """Return the speeds by row and what; a ratio above 1 is faster than the row `reference`."""
    found: dict[str, dict[str, Speed]] = {}
    for name in results.costs:
        for what in results.made_with["what"]:
            taken = [(r[name][what], r) for r in results.rounds if what in r.get(name, {})]
            if not taken:
                continue
            against = [(r.get(reference, {}).get(what), sec) for sec, r in taken]
            peak = results.peaks.get(name, {}).get(what)
            found.setdefault(name, {})[what] = Speed(
                clips_per_sec=1 / statistics.median(sec for sec, _ in taken),
                ratios=tuple(sorted(ref / sec for ref, sec in against if ref)),
                gib=peak / _GIB if peak else None,
                batch_size=results.batches[name][what],
            )
    return found


def write_report(
    results: Results, folder: str, published: Mapping[str, Published], reference: str
) -> list[str]:
    """Write table.md, table.json, table.csv and speed.png into the folder; return their paths."""
    rows = table_rows(results, published, reference)
    texts = {
        "table.md": markdown(results, rows, reference),
        "table.json": simplejson.dumps({"machine": results.machine, "rows": rows}, indent=1),
        "table.csv": _csv(rows),
    }
    written = []
    for name, text in texts.items():
        written.append(os.path.join(folder, name))
        _write(written[-1], text.encode())
    if speeds(results, reference):
        written.append(os.path.join(folder, "speed.png"))
        draw(results, reference, written[-1])
    return written


def _write(path: str, content: bytes) -> None:
    disk.write_atomic(path, lambda file: file.write(content))


def table_rows(
    results: Results, published: Mapping[str, Published], reference: str
) -> list[dict[str, Any]]:
    """Return a dict of plain values for each row of the table."""
    measured = speeds(results, reference)
    rows = []
    for name, cost in results.costs.items():
        known = published.get(name) or published.get(cost["model"]) or Published()
        row: dict[str, Any] = {
            "name": name,
            "model": cost["model"],
            "clip": cost["clip"],
            "parameters": cost["parameters"],
            "gflops": cost["multiply_adds"] / 1e9,
            "gflops_published": known.gflops,
            "speed_published": known.speed,
            "source": known.source,
            "note": cost["note"],
        }
        for what in results.made_with["what"]:
            speed = measured.get(name, {}).get(what)
            row[f"{what}_note"] = results.notes.get(name, {}).get(what, "")
            row[f"{what}_clips_per_sec"] = speed and speed.clips_per_sec
            row[f"{what}_ratio"] = speed and speed.ratio
            row[f"{what}_ratios"] = list(speed.ratios) if speed else []
            row[f"{what}_gib"] = speed and speed.gib
            row[f"{what}_batch_size"] = speed and speed.batch_size
        rows.append(row)
    return rows


def markdown(results: Results, rows: Sequence[Mapping[str, Any]], reference: str) -> str:
    """Return the table as markdown, with the machine and the notes below it."""
    what = results.made_with["what"]
    heads = ["", "clip", "M parameters", "GFLOPs, counted", "published"]
    for kind in what:
        title = _TITLES.get(kind, kind)
        heads += [f"{title}: clips/s", f"relative to {reference} (rounds)", "GiB"]
    heads.append("clips/s, published")
    lines = [f"| {' | '.join(heads)} |", "|---|---" + "|---:" * (len(heads) - 2) + "|"]
    notes = []
    for row in rows:
        if row["note"]:
            notes.append(f"- {row['name']}: {row['note']}")
            continue
        cells = [row["name"], row["clip"], f"{row['parameters'] / 1e6:.1f}", f"{row['gflops']:.2f}"]
        cells.append(_number(row["gflops_published"]))
        for kind in what:
            cells += _speed_cells(row, kind)
            if row[f"{kind}_note"]:
                notes.append(f"- {row['name']}, {kind}: {row[f'{kind}_note']}")
        cells.append(_number(row["speed_published"]))
        lines.append(f"| {' | '.join(cells)} |")
    sources = sorted({f"- {row['name']}: {row['source']}" for row in rows if row["source"]})
    rest = [*_section("Published", sources), *_section("Without figures", notes)]
    return "\n".join([*lines, "", _conditions(results), *rest, ""])


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{title}:", "", *lines] if lines else []


def _speed_cells(row: Mapping[str, Any], kind: str) -> list[str]:
    ratio, ratios = row[f"{kind}_ratio"], row[f"{kind}_ratios"]
    spread = f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
    return [_number(row[f"{kind}_clips_per_sec"]), spread, _number(row[f"{kind}_gib"])]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _conditions(results: Results) -> str:
    """Return a line on what was measured, and where."""
    made, machine = results.made_with, results.machine
    versions = ", ".join(
        f"{name} {number}" for name, number in machine.items() if name not in ("device", "threads")
    )
    rounds = sum(1 for taken in results.rounds if any(taken.values()))
    batch = made["batch_size"] or "the largest that fits"
    threads = f", {machine['threads']} threads" if made["device"] == "cpu" else ""
    return (
        f"{machine['device']}{threads}, {'bfloat16 autocast' if made['bfloat16'] else 'float32'}, "
        f"clips in a batch: {batch}, medians of {rounds} interleaved rounds; {versions}."
    )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = memory.StringIO()
    plain = [
        {key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in row.items()}
        for row in rows
    ]
    writer = csv.DictWriter(text, fieldnames=list(plain[0]) if plain else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return text.getvalue()


def draw(results: Results, reference: str, path: str) -> None:
    """Draw the speed of each row relative to the reference, with the spread over rounds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = speeds(results, reference)
    kinds = [w for w in results.made_with["what"] if any(w in one for one in measured.values())]
    names = list(measured)
    figure = Figure(
        figsize=(2.2 + 3.6 * len(kinds), 1.4 + 0.36 * len(names)), dpi=120, layout="constrained"
    )
    axes_of = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(axes_of, kinds, strict=True):
        for place, name in enumerate(names):
            speed = measured[name].get(kind)
            if speed is None or speed.ratio is None:
                continue
            spread = [[speed.ratio - min(speed.ratios)], [max(speed.ratios) - speed.ratio]]
            colour = "#f28e2b" if name == reference else _COLOUR
            axes.barh(place, speed.ratio, color=colour, height=0.7, xerr=spread, ecolor="#555555")
            axes.text(max(speed.ratios), place, f"  {speed.ratio:.2f}", va="center", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_title(_TITLES.get(kind, kind), fontsize=10)
        axes.set_xlabel(f"speed relative to {reference}", fontsize=8)
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
    axes_of[0].invert_yaxis()
    canvas = FigureCanvasAgg(figure)
    disk.write_atomic(path, lambda file: canvas.print_png(file, metadata={"Software": ""}))
