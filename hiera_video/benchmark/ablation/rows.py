"""The rows of a side-by-side measurement: their configs, costs and published figures."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import simplejson

from hiera_video.config import Config, load_config
from hiera_video.config.shipped import find_config
from hiera_video.flops.report import report_config
from hiera_video.utils.errors import UserError, first_line

PRETRAINING = "_MAE_PT"  # the end of a pretraining config's name, beside the fine-tuning config's
INFERENCE, TRAINING, PRETRAINING_STEP = WHAT = ("inference", "train", "mae")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the paths of a fine-tuning config and of a pretraining config ("": none)."""

    name: str
    fine_tune: str = ""
    pretrain: str = ""

    def path_of(self, what: str) -> str:
        """Return the config that `what` of WHAT measures; "" if the row has none."""
        return self.pretrain if what == PRETRAINING_STEP else self.fine_tune


@dataclass(slots=True)
class Cost:
    """What a row's classifier (or, without one, its autoencoder) costs for one clip.

    `note` says why a row has no figures.
    """

    model: str = ""
    clip: str = ""
    parameters: int = 0
    multiply_adds: int = 0
    note: str = ""


def read_rows(words: Sequence[str]) -> list[Row]:
    """Read rows from paths of configs, or NAME=PATH, or NAME=FINE-TUNING,PRETRAINING.

    A pretraining config X_MAE_PT.yaml joins the row of X.yaml if that file is there.

    Raises:
        UserError: two rows have one name.
    """
    rows: dict[str, Row] = {}
    for word in words:
        name, _, paths = word.rpartition("=")
        first, _, second = paths.partition(",")
        stem, ending = os.path.splitext(first)
        beside = stem.removesuffix(PRETRAINING) + ending
        if not second and stem.endswith(PRETRAINING):
            first, second = (beside if _exists(beside) else ""), first
        elif not second and _exists(stem + PRETRAINING + ending):
            second = stem + PRETRAINING + ending
        row = Row(name or os.path.basename(stem.removesuffix(PRETRAINING)), first, second)
        if rows.setdefault(row.name, row) != row:
            raise UserError(
                f"configs must have different names, got {row.name!r} twice. Try NAME=PATH."
            )
    return list(rows.values())


def _exists(path: str) -> bool:
    return os.path.exists(find_config(path))


def config_of(path: str, overrides: Sequence[str]) -> Config:
    """Load a config for measuring: random pixels, no data, no weights, no test."""
    fixed = ["DATA.PATH_TO_DATA_DIR", "", "TRAIN.CHECKPOINT_FILE_PATH", "", "AUG.NUM_SAMPLE", "1"]
    return load_config(path, [*overrides, *fixed])


def cost_of(row: Row, overrides: Sequence[str]) -> Cost:
    """Count the cost of a row; a problem of the user becomes its note."""
    cost = Cost()
    try:
        path = row.fine_tune or row.pretrain
        report = report_config(config_of(path, overrides), path)
    except UserError as error:
        cost.note = str(error).splitlines()[-1].strip()
        return cost
    _, *size = report.clip_shape
    size = size[1:] if size[0] == 1 else size  # an image
    cost.model, cost.clip = report.name, "x".join(map(str, size[:-1]))
    cost.parameters = report.cost.parameters
    cost.multiply_adds = report.cost.multiply_adds
    return cost


@dataclass(frozen=True, slots=True)
class Published:
    """What is published of a model: multiply-adds (in 10^9), clips or images/s, and where."""

    gflops: float | None = None
    speed: float | None = None
    source: str = ""


def read_published(path: str = "") -> Mapping[str, Published]:
    """Read published figures by name of model or row: those of the package, and those in `path`.

    The file is JSON: {"name": {"gflops": 1.0, "speed": 2.0, "source": "..."}}.

    Raises:
        UserError: the file cannot be read, or has another form.
    """
    here = os.path.join(os.path.dirname(__file__), "published.json")
    found: dict[str, Published] = {}
    for place in (here, path) if path else (here,):
        try:
            with open(place, encoding="utf-8") as file:
                known: Any = simplejson.load(file)
            found |= {name: Published(**figures) for name, figures in known.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                '--published must be a JSON file {"MODEL": {"gflops": 1, "speed": 2, "source": '
                f'"..."}}}}, got {place!r} ({first_line(error)}).'
            ) from None
    return found
