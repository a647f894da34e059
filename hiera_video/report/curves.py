"""Make the charts of a report: training curves, accuracy by views, accuracy by FLOPs."""

from collections.abc import Mapping, Sequence

from hiera_video.report.charts import Axis, Chart, Series, draw
from hiera_video.report.cost import Cost
from hiera_video.report.history import Points
from hiera_video.report.parts import Missing
from hiera_video.report.run_files import Run

# Ratio of the largest to the smallest FLOPs above which the axis is logarithmic.
LOG_FROM_RATIO = 4


def percent(value: float) -> str:
    """Format a number of percent."""
    return f"{value:.3g} %"


_EPOCHS = Axis("epoch", write="{:.4g}".format, low=0)
_ACCURACY = Axis("accuracy", write=percent)


def training_charts(runs: Sequence[Run]) -> list[Chart]:
    """Chart loss, validation accuracies, learning rate and data wait, with the runs overlaid."""
    by_epoch = {run.number: run.course.by_epoch for run in runs}
    by_iteration = {run.number: run.course.by_iteration for run in runs}
    validations = {run.number: run.course.validations for run in runs}
    # Iterations are drawn faint behind epochs; alone if no epoch has finished.
    losses = [
        *_series(runs, by_iteration, "loss", faint=any(map(bool, by_epoch.values()))),
        *_series(runs, by_epoch, "loss"),
    ]
    waits = [
        Series(one.number, one.name, [(x, 100 * y) for x, y in one.points])
        for one in _series(runs, by_epoch, "data_wait_share")
    ]
    # The axis reaches at least 10 %, so that small shares look small.
    longest_wait = max([10.0, *(y for one in waits for _, y in one.points)])
    accuracy = Axis("accuracy", write=percent, low=0, high=100)
    charts = [
        draw("Loss", losses, _EPOCHS, Axis("loss")),
        *(
            draw(f"Validation, {name}", _series(runs, validations, key), _EPOCHS, accuracy)
            for name, key in (("top-1", "top1_acc"), ("top-5", "top5_acc"))
        ),
        draw(
            "Learning rate",
            _rates(runs),
            _EPOCHS,
            Axis("learning rate", low=0, write="{:.2g}".format),
        ),
        draw(
            "Waiting for data",
            waits,
            _EPOCHS,
            Axis("share of the time", write=percent, low=0, high=longest_wait),
        ),
    ]
    return [chart for chart in charts if chart]


def views_chart(runs: Sequence[Run]) -> Chart | None:
    """Chart top-1 over the number of views, for the tests that measured several numbers."""
    series = [one for run in runs if len(_views(run)) > 1 for one in _by_views(run)]
    return draw("Top-1 by number of views", series, Axis("views of a video", low=0), _ACCURACY)


def cost_chart(runs: Sequence[Run], costs: Mapping[int, Cost | Missing]) -> Chart | None:
    """Chart top-1 over the multiply-adds of a video, with a point for each number of views."""
    series = [
        one
        for run in runs
        if isinstance(cost := costs.get(run.number), Cost)
        for one in _by_views(run, gflops_per_view=cost.multiply_adds_per_view / 1e9)
    ]
    flops = [x for one in series for x, _ in one.points]
    log = bool(flops) and max(flops) > LOG_FROM_RATIO * min(flops) > 0
    x_axis = Axis("GFLOPs of a video" + ", logarithmic" * log, log=log)
    return draw("Top-1 by FLOPs", series, x_axis, _ACCURACY)


def _views(run: Run) -> list[tuple[int, int, float]]:
    return [] if isinstance(run.tested, Missing) else run.tested.by_views()


def _by_views(run: Run, *, gflops_per_view: float = 1.0) -> list[Series]:
    """Return top-1 over the number of clips, as a series for each number of crops."""
    rows = sorted(_views(run))
    return [
        Series(
            run.number,
            run.name,
            [(t * s * gflops_per_view, top1) for t, s, top1 in rows if s == crops],
            notes=[f"{t}x{s} views" for t, s, _ in rows if s == crops],
            part=f"{crops} crop{'s' * (crops > 1)}",
        )
        for crops in sorted({s for _, s, _ in rows})
    ]


def _series(
    runs: Sequence[Run], of: Mapping[int, Mapping[str, Points]], figure: str, *, faint: bool = False
) -> list[Series]:
    return [Series(run.number, run.name, of[run.number].get(figure, []), faint) for run in runs]


def _rates(runs: Sequence[Run]) -> list[Series]:
    """Return learning rates by iteration, or by epoch for runs too short to log iterations."""
    return [
        Series(
            run.number,
            run.name,
            run.course.by_iteration.get("lr") or run.course.by_epoch.get("lr", []),
        )
        for run in runs
    ]
