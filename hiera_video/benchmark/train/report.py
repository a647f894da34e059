"""Show the figures of training steps as a table and as a picture."""

import statistics
from importlib.metadata import version

import torch

from hiera_video.benchmark.train.figures import (
    PLAIN,
    PUBLISHED,
    Figures,
    TrainReport,
    TrainSettings,
)
from hiera_video.benchmark.train.step import COMMUNICATION, DATA, PHASES
from hiera_video.engine.compiling import METHODS
from hiera_video.utils import disk
from hiera_video.utils.errors import UserError

# Labels of the variants named on the command line.
NAMES = {
    PLAIN: "ours",
    "encoder": "ours, COMPILE encoder",
    "step": "ours, COMPILE step",
    "checkpoint": "ours, ACT_CHECKPOINT",
    PUBLISHED: "published",
}
_COLOURS = ("#bab0ac", "#4e79a7", "#f28e2b", "#59a14f", "#e15759")
_GIB = 2**30


def describe_training(settings: TrainSettings, report: TrainReport) -> str:
    """Return a line that says what was measured, and the table."""
    compared = PUBLISHED in settings.variants and not report.figures[PUBLISHED].note
    peers = f", hiera-transformer {version('hiera-transformer')}" if compared else ""
    return (
        f"{settings.cfg.MODEL.MODEL_NAME}, {headline(report)}{peers}, medians of "
        f"{settings.rounds} interleaved rounds\n{render_training(report)}"
    )


def render_training(report: TrainReport) -> str:
    """Return tables of the milliseconds and shares of a step and of derived figures."""
    lines = [f"  {'ms of a step':<24}{'all':>9}" + "".join(f"{name:>16}" for name in PHASES)]
    for name, figures in report.figures.items():
        if figures.note:
            lines.append(f"  {NAMES[name]:<24}  {figures.note}")
        else:
            lines.append(f"  {NAMES[name]:<24}{1e3 * figures.step_sec:>9.1f}{_phases(figures)}")
    lines += [
        "",
        f"  {'':<24}{'GiB':>9}{'clips/s':>9}{'of peak':>9}{'first loss':>12}{'compiling':>11}"
        "   published / this (rounds)",
    ]
    lines += [_rest(report, name) for name, one in report.figures.items() if not one.note]
    return "\n".join([*lines, "", *_notes(report)])


def _phases(figures: Figures) -> str:
    phase_sec, cells = figures.phase_sec(), []
    whole = sum(phase_sec.values())
    for name in PHASES:
        if name in phase_sec:
            cells.append(f"{1e3 * phase_sec[name]:>10.1f} {phase_sec[name] / whole:>4.0%}")
        else:
            cells.append(f"{'-':>15}")
    return "".join(f"{cell:>16}" for cell in cells)


def _rest(report: TrainReport, name: str) -> str:
    figures = report.figures[name]
    compiling = f"{figures.first_sec - figures.step_sec:.0f} s" if name in METHODS else "-"
    return (
        f"  {NAMES[name]:<24}{figures.peak_bytes / _GIB:>9.2f}"
        f"{report.num_clips * report.processes / figures.step_sec:>9.2f}"
        f"{report.share_of_peak(name):>9.1%}{figures.first_loss:>12.6f}{compiling:>11}"
        f"{_ratio(report, name)}"
    )


def _ratio(report: TrainReport, name: str) -> str:
    theirs = report.figures.get(PUBLISHED)
    if theirs is None or theirs.note:
        return ""
    ours = report.figures[name].rounds_sec
    ratios = [t / o for t, o in zip(theirs.rounds_sec, ours, strict=True)]
    rounds = " ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    return f"   {statistics.median(ratios):.2f} ({rounds})"


def _notes(report: TrainReport) -> list[str]:
    precision = "bfloat16" if report.bfloat16 else "float32"
    source = (
        "from the config's loader; data wait includes the copy to the device"
        if report.from_loader
        else "noise in memory, so there is no data wait; set DATA.PATH_TO_DATA_DIR to use a loader"
    )
    losses = "of different clips" if report.from_loader else "ours drop the same paths in it"
    lines = [
        f"  clips: {source}",
        f"  of peak: {report.operations / 1e9:.3g} GFLOP a clip (three forward passes, without "
        f"recomputation) at the {report.matmul_rate / 1e12:.2f} TFLOP/s of a {precision} matrix "
        "product in the same rounds",
        f"  first loss: {losses}; compiling: time of the first step minus that of a later step",
    ]
    if report.processes == 1:
        lines.append(f"  {COMMUNICATION}: none with one process (--processes)")
    else:
        lines.append(
            f"  {COMMUNICATION}: backward with all-reduce minus backward without, in turns; what "
            "overlaps with computation does not count"
        )
    if len(report.plain_losses) == 2:
        ours, theirs = report.plain_losses[PLAIN], report.plain_losses[PUBLISHED]
        lines.append(
            f"  loss with the same weights and no dropout: ours {ours:.6f}, published "
            f"{theirs:.6f}, difference {abs(ours - theirs):.1e}"
        )
    return lines


def draw_training(report: TrainReport, path: str) -> None:
    """Draw the phases of each variant's step as stacked bars, into a PNG file.

    Raises:
        UserError: it cannot be written, or no variant has figures.
    """
    # The object interface draws without a display and without matplotlib's global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [(name, figures) for name, figures in report.figures.items() if not figures.note]
    if not rows:
        raise UserError("--picture needs a variant that could be measured. Try --variants plain.")
    figure = Figure(figsize=(11, 1.9 + 0.62 * len(rows)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    labels = [NAMES[name].replace(", ", "\n") for name, _ in rows]
    widest = max(sum(figures.phase_sec().values()) for _, figures in rows)
    left = [0.0] * len(rows)
    for phase, colour in zip(PHASES, _COLOURS, strict=True):
        widths = [1e3 * figures.phase_sec().get(phase, 0.0) for _, figures in rows]
        if phase in (DATA, COMMUNICATION) and not any(widths):
            continue
        axes.barh(labels, widths, left=left, color=colour, label=phase, height=0.65)
        for row, width in enumerate(widths):
            if width > 45 * widest:  # wide enough for a number
                x = left[row] + width / 2
                axes.text(x, row, f"{width:.0f}", ha="center", va="center", color="white")
            left[row] += width
    for row, (name, figures) in enumerate(rows):
        text = f" {left[row]:.0f} ms, {figures.peak_bytes / _GIB:.1f} GiB"
        text += f", {report.share_of_peak(name):.0%} of peak"
        axes.text(left[row], row, text, va="center")
    axes.set_xlim(0, 1.3e3 * widest)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of a step (medians)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(PHASES))
    axes.set_title(headline(report), fontsize=10)
    canvas = FigureCanvasAgg(figure)
    try:
        disk.write_atomic(path, lambda file: canvas.print_png(file, metadata={"Software": ""}))
    except OSError as error:
        raise UserError(f"{path!r} could not be written ({error.strerror or error}).") from None


def headline(report: TrainReport) -> str:
    """Return a line that says what was measured, and on which device."""
    precision = "bfloat16 autocast" if report.bfloat16 else "float32"
    where = report.device
    if where == "cpu":
        where += f", {report.threads} thread{'s' * (report.threads > 1)}"
    count = f"{report.processes} processes of " if report.processes > 1 else ""
    return (
        f"one fine-tuning step, {count}{report.num_clips} clips, {precision}, {where}, "
        f"torch {torch.__version__}"
    )
