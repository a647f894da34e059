"""Format the loader benchmark as text: medians over rounds, and ratios within each round."""

import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import version

from hiera_video.benchmark.loader.measure import (
    BACKENDS,
    PER_VIEW,
    PLAIN,
    PYSLOWFAST,
    SPLITS,
    VIEWS,
    Figures,
    Run,
)

_HEAD = (
    f"  {'':<12}{'clips/s':>8}{'CPU ms':>9}{'decode':>9}{'transform':>11}{'transport':>11}"
    f"{'wait':>8}{'plain':>9}{'over plain decoding':>22}"
)


def render_loading(figures: Figures) -> str:
    """Return the cost of reading with each backend, against plain decoding of the same frames."""
    lines = []
    for split in SPLITS:
        clips, views = figures.clips_per_video[split], figures.views_per_video[split]
        lines += [
            f"{split}: {_count(clips, 'clip')} and {_count(views, 'view')} of each video; "
            "milliseconds per clip",
            _HEAD,
        ]
        for backend in figures.backends:
            runs = figures.runs[backend, split, VIEWS]
            plain = figures.runs[backend, split, PLAIN]
            shares = [
                run.cpu_sec / base.decode_sec - 1 for run, base in zip(runs, plain, strict=True)
            ]
            ms = 1000 / clips
            lines.append(
                f"  {backend:<12}{clips / _median(runs, lambda run: run.wall_sec):>8.1f}"
                f"{ms * _median(runs, lambda run: run.cpu_sec):>9.1f}"
                f"{ms * _median(runs, lambda run: run.decode_sec):>9.1f}"
                f"{ms * _median(runs, lambda run: run.transform_sec):>11.1f}"
                f"{ms * _median(runs, lambda run: run.transport_sec):>11.1f}"
                f"{ms * _median(runs, lambda run: run.wait_sec):>8.1f}"
                f"{ms * _median(plain, lambda run: run.decode_sec):>9.1f}"
                f"  {statistics.median(shares):>+8.1%} ({_spread(shares, '+.0%')})"
            )
    return "\n".join(lines)


def render_per_view(figures: Figures) -> str:
    """Return how much faster decoding once for all views is than decoding for each view."""
    views = figures.views_per_video["test"]
    lines = [f"test videos of {_count(views, 'view')}, decoded once against once for every view"]
    for backend in figures.backends:
        runs = figures.runs[backend, "test", VIEWS]
        lines.append(f"  {backend:<12}{_rate(runs)}")
        for way, name in ((PER_VIEW, "our reader"), (PYSLOWFAST, "as PySlowFast does")):
            others = figures.runs.get((backend, "test", way))
            if others is None:
                continue
            ratios = [other.cpu_sec / run.cpu_sec for other, run in zip(others, runs, strict=True)]
            lines.append(
                f"    per view, {name:<20}{_rate(others)}   "
                f"ratio {statistics.median(ratios):.1f} ({_spread(ratios, '.1f')})"
            )
    return "\n".join(lines)


def render_parts(parts_sec: dict[str, float]) -> str:
    """Return the parts of a training view, most expensive first, and the sum of RandAugment's."""
    total_ms = 1000 * sum(parts_sec.values())
    augment_ms = 1000 * sum(
        sec for name, sec in parts_sec.items() if name.startswith("RandAugment")
    )
    lines = [
        f"a training view, expected: {total_ms:.1f} ms of transforms, RandAugment "
        f"{augment_ms:.1f} of them; most expensive first:"
    ]
    for name, sec in list(parts_sec.items())[:8]:
        lines.append(f"  {name:<28}{1000 * sec:>7.2f} ms  {100_000 * sec / total_ms:>4.0f} %")
    return "\n".join(lines)


def render_head(figures: Figures) -> str:
    """Return what was read, and with which package versions."""
    lines = [
        f"{_count(figures.num_workers, 'worker process', 'worker processes')} of each backend; "
        "CPU time, but for clips/s and wait"
    ]
    for backend, num in figures.num_read.items():
        package = BACKENDS.get(backend, backend)
        failure = figures.first_failures.get(backend)
        lines.append(
            f"  {backend} ({package} {version(package)}): {num} of {figures.num_videos} videos read"
            + (f"; {failure}" if failure else "")
        )
    return "\n".join(lines)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _rate(runs: Sequence[Run]) -> str:
    wall_sec = _median(runs, lambda run: run.wall_sec)
    cpu_sec = _median(runs, lambda run: run.cpu_sec)
    return f"{1 / wall_sec:>8.2f} videos/s{1000 * cpu_sec:>9.0f} CPU ms per video"


def _median(runs: Sequence[Run], of: Callable[[Run], float]) -> float:
    return statistics.median(of(run) for run in runs)


def _spread(values: Sequence[float], form: str) -> str:
    return "rounds: " + " ".join(format(value, form) for value in sorted(values))
