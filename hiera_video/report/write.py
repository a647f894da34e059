"""Write the report: gather its content and render one self-contained html page."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from hiera_video.data.build import decoding
from hiera_video.data.decoders import Decoding
from hiera_video.report.charts import Chart
from hiera_video.report.classes import (
    MAX_LISTED,
    NUM_BEST,
    ClassRow,
    Confusion,
    Pictured,
    class_rows,
    confusion,
    pictured_mistakes,
)
from hiera_video.report.cost import Cost, cost_of
from hiera_video.report.curves import cost_chart, training_charts, views_chart
from hiera_video.report.parts import Missing
from hiera_video.report.reconstructions import reconstructions
from hiera_video.report.run_files import Run, read_runs
from hiera_video.report.settings import setting_rows
from hiera_video.report.summary import headline, table
from hiera_video.report.tested import Tested
from hiera_video.utils import disk
from hiera_video.utils.errors import UserError
from hiera_video.utils.outputs import refuse_unwritable
from hiera_video.version import __version__

REPORT_FILE = "report.html"
_NUM_BAD_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes, confusions and mistakes in the test of `run`."""

    run: Run
    rows: list[ClassRow]
    confusion: Confusion
    mistakes: list[Pictured]


def default_path(folders: Sequence[str]) -> str:
    """Return the default path of a report.

    It is in the run's folder. For several runs it is in their common parent folder, or in the first
    run's folder if their parents differ.
    """
    paths = [os.path.normpath(folder) for folder in folders]
    parents = {os.path.dirname(os.path.abspath(path)) for path in paths}
    side_by_side = len(set(paths)) > 1 and len(parents) == 1
    return os.path.join(os.path.dirname(paths[0]) if side_by_side else paths[0], REPORT_FILE)


def write_report(
    folders: Sequence[str], path: str, *, num_mistakes: int = 12, num_reconstructions: int = 3
) -> int:
    """Write the report on the runs in `folders` to `path`; return its size in bytes.

    The report says which parts are missing, and why.

    Raises:
        UserError: a folder holds no run, or the file cannot be written.
    """
    runs = read_runs(folders)
    refuse_unwritable(path, key="--output")
    page = render(
        gather(runs, num_mistakes=num_mistakes, num_reconstructions=num_reconstructions)
    ).encode(errors="replace")  # file names need not be valid text
    try:
        disk.write_atomic(path, lambda file: file.write(page))
    except OSError as error:
        raise UserError(
            f"--output must be a file that can be written, got {path!r} "
            f"({error.strerror or error}). Try another one."
        ) from None
    return len(page)


def gather(runs: Sequence[Run], *, num_mistakes: int, num_reconstructions: int) -> dict[str, Any]:
    """Gather the content of the page, by the names that its template uses."""
    costs: Mapping[int, Cost | Missing] = {run.number: cost_of(run.config) for run in runs}
    pretraining = [run for run in runs if run.is_pretraining]
    classifying = [run for run in runs if not run.is_pretraining]
    return {
        "runs": runs,
        "headlines": [headline(run) for run in runs],
        "summary": table(runs, costs),
        "training": _by_task(pretraining, classifying),
        "classifying": classifying,
        "views_chart": views_chart(classifying),
        "cost_chart": cost_chart(classifying, costs),
        "uncounted": [
            (run, costs[run.number]) for run in runs if not isinstance(costs[run.number], Cost)
        ],
        "classes": [_classes(run, num_mistakes) for run in classifying],
        "reconstructions": [
            (run, reconstructions(run, num_reconstructions))
            for run in pretraining
            if num_reconstructions > 0
        ],
        "settings": setting_rows(runs),
        "num_best": NUM_BEST,
        "max_listed": MAX_LISTED,
        "num_bad_shown": _NUM_BAD_SHOWN,
        "version": __version__,
        "made_at": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    }


def render(content: Mapping[str, Any]) -> str:
    """Render the page; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("hiera_video.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["missing"] = lambda value: isinstance(value, Missing)
    environment.filters["soft"] = soft
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    return environment.get_template("page.html").render(content)


def soft(name: str) -> Markup:
    """Escape a name and allow a line break after each underscore."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _by_task(
    pretraining: Sequence[Run], classifying: Sequence[Run]
) -> list[tuple[str, Sequence[Run], list[Chart]]]:
    """Return (heading, runs, charts) of each task: losses and epochs of tasks do not compare."""
    return [
        (heading, runs, training_charts(runs))
        for heading, runs in (("Pretraining", pretraining), ("Classification", classifying))
        if runs
    ]


def _classes(run: Run, num_mistakes: int) -> tuple[Run, Classes | Missing]:
    if not isinstance(run.tested, Tested):
        return run, run.tested
    scores = run.tested.scores
    if isinstance(scores, Missing):
        return run, scores
    backend = Decoding() if isinstance(run.config, Missing) else decoding(run.config)
    mistakes = pictured_mistakes(scores, num_mistakes, backend=backend)
    return run, Classes(run, class_rows(scores), confusion(scores), mistakes)
