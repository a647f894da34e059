"""Read what a report needs from each OUTPUT_DIR."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

from hiera_video.checkpoints.run_folder import CONFIG_FILES, LOG_FILE, RESULTS_FILE, last_checkpoint
from hiera_video.config import Config, load_config
from hiera_video.models.origin import Origin, origin_of
from hiera_video.report.history import History, read_history
from hiera_video.report.parts import Missing, attempt
from hiera_video.report.tested import Tested, read_test
from hiera_video.utils import io
from hiera_video.utils.errors import UserError


@dataclass(frozen=True, slots=True)
class Run:
    """The files of one run; `name` is unique in the report, and `number` counts from 0.

    `config_text` is the text of the saved YAML, empty if there is none.
    """

    number: int
    name: str
    folder: str
    config_text: str
    config: Config | Missing
    history: History | Missing
    tested: Tested | Missing
    checkpoint: str | None
    origin: Origin | Missing

    @property
    def course(self) -> History:
        """The history of its training, an empty one if it is missing."""
        return History() if isinstance(self.history, Missing) else self.history

    @property
    def is_pretraining(self) -> bool:
        """Whether the run learns without labels; False if its config cannot be read."""
        return not isinstance(self.config, Missing) and self.config.TASK == "ssl"


def read_runs(folders: Sequence[str]) -> list[Run]:
    """Read the runs in `folders`.

    Raises:
        UserError: one of them is not a folder, or no run has written to it.
    """
    folders = list(dict.fromkeys(os.path.normpath(folder) for folder in folders))
    for folder in folders:
        _refuse_no_run(folder)
    names = zip(folders, short_names(folders), strict=True)
    return [_read_run(number, name, folder) for number, (folder, name) in enumerate(names)]


def short_names(folders: Sequence[str]) -> list[str]:
    """Shorten each path to the fewest last parts that make it unique."""
    parts = [PurePath(os.path.abspath(folder)).parts for folder in folders]
    names: list[str] = []
    for own in parts:
        for length in range(1, len(own) + 1):
            if sum(other[-length:] == own[-length:] for other in parts) == 1:
                break
        names.append(str(PurePath(*own[-length:])))
    return names


def _refuse_no_run(folder: str) -> None:
    if not io.is_dir(folder):
        raise UserError(
            f"OUTPUT_DIR must be the folder of a run, got {folder!r}, which is not a folder. Try "
            "the OUTPUT_DIR of the run."
        )
    if _is_run(folder):
        return
    try:
        inside = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR must be a folder that can be read, got {folder!r} ({error.strerror})."
        ) from None
    runs = [path for path in inside if io.is_dir(path) and _is_run(path)]
    hint = f" Try {' '.join(runs[:6])}." if runs else ""
    raise UserError(
        f"OUTPUT_DIR must be the folder of a run, got {folder!r}, which holds none of "
        f"{', '.join([*CONFIG_FILES, LOG_FILE, RESULTS_FILE])}.{hint}"
    )


def _is_run(folder: str) -> bool:
    files = (*CONFIG_FILES, LOG_FILE, RESULTS_FILE)
    return any(io.is_file(os.path.join(folder, name)) for name in files)


def _read_run(number: int, name: str, folder: str) -> Run:
    paths = [path for file in CONFIG_FILES if io.is_file(path := os.path.join(folder, file))]
    configs = [
        attempt(f"{os.path.basename(p)} cannot be used", partial(load_config, p)) for p in paths
    ]
    text = attempt("unreadable", partial(_read_text, paths[0])) if paths else ""
    # The config of a separate test, if there is one, comes last and counts first.
    scores = [cfg.TEST.SCORES_FILE for cfg in reversed(configs) if not isinstance(cfg, Missing)]
    log, checkpoint = os.path.join(folder, LOG_FILE), last_checkpoint(folder)
    return Run(
        number=number,
        name=name,
        folder=folder,
        config_text="" if isinstance(text, Missing) else text,
        config=configs[0] if configs else Missing(f"There is no {CONFIG_FILES[0]} in this folder."),
        history=attempt(f"{LOG_FILE} cannot be read", partial(read_history, log)),
        tested=attempt("The test's files cannot be read", partial(read_test, folder, scores)),
        checkpoint=checkpoint,
        origin=attempt("The checkpoint cannot be read", partial(origin_of, checkpoint, None))
        if checkpoint
        else Missing("There is no checkpoint in this folder."),
    )


def _read_text(path: str) -> str:
    with io.open_file(path) as file:
        return file.read()
