"""Summarise runs: a headline for each, and a table with a column for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hiera_video.report.cost import Cost
from hiera_video.report.parts import Missing
from hiera_video.report.run_files import Run
from hiera_video.utils.machine import clock

NONE = "-"  # the run has no such figure


@dataclass(frozen=True, slots=True)
class Headline:
    """One large figure of a run, its meaning, and the run's state in a line below."""

    number: int
    name: str
    figure: str
    meaning: str
    line: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table; `best` holds the columns of the best values, if they are compared."""

    label: str
    cells: Sequence[str]
    best: frozenset[int] = frozenset()


def headline(run: Run) -> Headline:
    """Return a run's main figure: from its test, else its last validation, else its loss."""
    history = run.course
    state = _state(run)
    if not isinstance(run.tested, Missing) and (top1 := run.tested.number("top1_acc")) is not None:
        views = run.tested.figures.get("views", "?")
        return Headline(
            run.number, run.name, f"{top1:.1f} %", f"top-1 in the test, {views} views", state
        )
    if (top1 := history.last(history.validations, "top1_acc")) is not None:
        meaning = "top-1 in the last validation"
        return Headline(run.number, run.name, f"{top1:.1f} %", meaning, state)
    for points in (history.by_epoch, history.by_iteration):
        if (loss := history.last(points, "loss")) is not None:
            what = "pretraining loss" if run.is_pretraining else "training loss"
            return Headline(run.number, run.name, f"{loss:.3f}", f"last {what}", state)
    return Headline(run.number, run.name, NONE, "no figures yet", state)


def table(runs: Sequence[Run], costs: Mapping[int, Cost | Missing]) -> list[Row]:
    """Return the rows for which at least one run has a value."""
    rows = [
        _row(label, [of(run, costs.get(run.number)) for run in runs], better)
        for label, of, better in _ROWS
    ]
    return [row for row in rows if any(cell != NONE for cell in row.cells)]


# A value as text, and the number by which runs are compared, None if they are not.
_Value = tuple[str, float | None]
_Of = Callable[[Run, Cost | Missing | None], _Value]
_ABSENT: _Value = (NONE, None)


def _row(label: str, values: Sequence[_Value], better: str) -> Row:
    numbers = [number for _, number in values if number is not None]
    best: frozenset[int] = frozenset()
    if better and len(numbers) > 1 and len(set(numbers)) > 1:
        goal = max(numbers) if better == "higher" else min(numbers)
        best = frozenset(place for place, (_, number) in enumerate(values) if number == goal)
    return Row(label, [text for text, _ in values], best)


def _state(run: Run) -> str:
    history = run.course
    if history.stopped:
        return history.stopped
    if not history.max_epoch:
        return "no training in this folder's log"
    done = f"{history.finished:g} of {history.max_epoch} epochs"
    return done if history.finished == history.max_epoch else f"{done}: not finished"


def _task(run: Run, _: object) -> _Value:
    if isinstance(run.config, Missing):
        return _ABSENT
    return ("pretraining (ssl)" if run.is_pretraining else "classification"), None


def _model(run: Run, _: object) -> _Value:
    if isinstance(run.config, Missing):
        return _ABSENT
    data = run.config.DATA
    size = f"{data.NUM_FRAMES}x{data.SAMPLING_RATE}, {data.TRAIN_CROP_SIZE} px"
    return f"{run.config.MODEL.MODEL_NAME} ({size})", None


def _started_from(run: Run, _: object) -> _Value:
    if isinstance(run.config, Missing):
        return _ABSENT
    named, origin = run.config.TRAIN.CHECKPOINT_FILE_PATH, run.origin
    if isinstance(origin, Missing) or origin.weights is None:
        return named or "fresh weights", None
    unused = origin.unused(run.config.TRAIN.CHECKPOINT_FILE_PATH)
    notes = [f"{unused} is named but not used"] if unused else []
    notes += [f"licence of the weights: {origin.licence}"] if origin.licence else []
    said = f" ({'; '.join(notes)})" if notes else ""
    return f"{origin.weights or 'fresh weights'}{said}", None


def _tested(figure: str) -> _Of:
    def of(run: Run, _: object) -> _Value:
        value = None if isinstance(run.tested, Missing) else run.tested.number(figure)
        return _ABSENT if value is None else (f"{value:.2f} %", value)

    return of


def _evaluated(run: Run, _: object) -> _Value:
    if isinstance(run.tested, Missing):
        return _ABSENT
    done, of = (run.tested.number(name) for name in ("num_evaluated", "num_videos"))
    return _ABSENT if done is None or of is None else (f"{done:,.0f} of {of:,.0f}", None)


def _views(run: Run, _: object) -> _Value:
    views = None if isinstance(run.tested, Missing) else run.tested.figures.get("views")
    return (str(views), None) if views else _ABSENT


def _best_validation(run: Run, _: object) -> _Value:
    points = run.course.validations.get("top1_acc")
    if not points:
        return _ABSENT
    epoch, top1 = max(points, key=lambda point: point[1])
    return f"{top1:.2f} % (epoch {epoch:g})", top1


def _loss(run: Run, _: object) -> _Value:
    history = run.course
    loss = history.last(history.by_epoch, "loss")
    return _ABSENT if loss is None else (f"{loss:.4f}", None)  # tasks may differ: not compared


def _wait(run: Run, _: object) -> _Value:
    history = run.course
    waited, whole = 0.0, history.total("epoch_sec")
    if not whole:
        return _ABSENT
    seconds = dict(history.by_epoch["epoch_sec"])
    for epoch, share in history.by_epoch.get("data_wait_share", []):
        waited += share * seconds.get(epoch, 0.0)
    return f"{100 * waited / whole:.1f} %", None


def _total(figure: str, write: Callable[[float], str]) -> _Of:
    def of(run: Run, _: object) -> _Value:
        value = run.course.total(figure)
        return _ABSENT if value is None else (write(value), None)

    return of


def _last(figure: str, write: Callable[[float], str]) -> _Of:
    def of(run: Run, _: object) -> _Value:
        history = run.course
        value = history.last(history.by_epoch, figure)
        return (write(value), None) if value else _ABSENT

    return of


def _flops(run: Run, cost: Cost | Missing | None) -> _Value:
    if not isinstance(cost, Cost):
        return _ABSENT
    doubt = "at least " * cost.incomplete
    return f"{doubt}{cost.multiply_adds_per_view / 1e9:.3g}", None


_ROWS: tuple[tuple[str, _Of, str], ...] = (
    ("task", _task, ""),
    ("model", _model, ""),
    ("started from", _started_from, ""),
    ("state", lambda run, _: (_state(run), None), ""),
    ("test, top-1", _tested("top1_acc"), "higher"),
    ("test, top-5", _tested("top5_acc"), "higher"),
    ("test, mean of the classes", _tested("mean_class_acc"), "higher"),
    ("test, views", _views, ""),
    ("test, videos evaluated", _evaluated, ""),
    ("best validation, top-1", _best_validation, "higher"),
    ("training loss, last epoch", _loss, ""),
    ("time of the epochs", _total("epoch_sec", clock), ""),
    ("of this, waiting for data", _wait, ""),
    ("clips per second, last epoch", _last("clips_per_sec", "{:.1f}".format), ""),
    ("GPU memory, peak (GiB)", _last("gpu_memory_gib", "{:.1f}".format), ""),
    ("videos that did not decode", _total("bad_videos", "{:g}".format), ""),
    ("skipped steps", _total("skipped_steps", "{:g}".format), ""),
    (
        "parameters",
        lambda _, cost: (
            (f"{cost.parameters / 1e6:.3g} M", None) if isinstance(cost, Cost) else _ABSENT
        ),
        "",
    ),
    ("GFLOPs of a view", _flops, ""),
    ("versions", lambda run, _: (run.course.versions or NONE, None), ""),
)
