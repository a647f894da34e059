"""Read a sweep's file, and make the chains of configs that it stands for.

A sweep's file is YAML with these keys:

- about: what is asked, in a sentence;
- fine_tune, pretrain: the base configs;
- vary: a config key; values: its values, or groups of KEY: VALUE;
- stage: which configs get the value (pretrain, fine_tune, both or test);
- starts: scratch, pretrained or both; seeds: values of RNG_SEED.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from hiera_video.checkpoints.run_folder import checkpoint_path
from hiera_video.config import Config, load_config, to_yaml
from hiera_video.config.shipped import find_config
from hiera_video.utils.errors import UserError, first_line

SCRATCH, PRETRAINED = STARTS = ("scratch", "pretrained")
STAGES = {
    "pretrain": ("pretrain",),
    "fine_tune": ("fine_tune", "test"),
    "both": ("pretrain", "fine_tune", "test"),
    "test": ("test",),
}
_KEYS = {"about", "fine_tune", "pretrain", "vary", "values", "stage", "starts", "seeds"}


@dataclass(frozen=True, slots=True)
class Chain:
    """One run of a sweep: the configs of its steps, in order; `pretrain` is None from scratch.

    `settings` are the overrides that make it differ from the base configs. Steps that chains have
    in common have the same OUTPUT_DIR, and are run once.
    """

    sweep: str
    value: str
    start: str
    seed: int
    settings: dict[str, Any]
    pretrain: Config | None
    fine_tune: Config
    test: Config

    @property
    def name(self) -> str:
        """The chain's name in results, messages and `--only`."""
        return f"{self.sweep}/{self.value}/{self.start}/seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's file: its name, its question, the key that varies, and its chains."""

    name: str
    about: str
    vary: str
    chains: tuple[Chain, ...]


def read_sweep(
    path: str,
    *,
    output: str,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (),
    bases: Mapping[str, str] | None = None,
) -> Sweep:
    """Read the sweep at `path`; its runs write below the folder `output`.

    `overrides` (KEY, VALUE, ...) apply to every config. `seeds` and `bases` (for "fine_tune" and
    "pretrain") replace those of the file.

    Raises:
        UserError: the file cannot be read or has other keys, or configs refuse their values; all
            problems of the configs together.
    """
    file = {**_read(path), **(bases or {})}
    name = os.path.splitext(os.path.basename(path))[0]
    chains: list[Chain] = []
    problems: dict[str, None] = {}
    for seed in seeds or file.get("seeds", [0]):
        for value in file["values"]:
            for start in file.get("starts", [PRETRAINED]):
                try:
                    chains.append(_chain(name, file, value, start, int(seed), output, overrides))
                except UserError as error:
                    problems[f"{name}, {shown(value)}: {str(error).splitlines()[-1].strip()}"] = (
                        None
                    )
    if problems:
        raise UserError("\n".join(problems))
    return Sweep(name, str(file.get("about", "")), str(file["vary"]), tuple(chains))


def shown(value: Any) -> str:
    """Return a value of a sweep as text for names and axes."""
    if isinstance(value, dict):
        return ",".join(str(one) for one in value.values())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(find_config(path), encoding="utf-8") as stream:
            file = yaml.safe_load(stream)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"SWEEP must be a YAML file, got {path!r} ({first_line(error)}).") from None
    missing = {"fine_tune", "vary", "values", "stage"} - set(file or {})
    if not isinstance(file, dict) or missing or set(file) - _KEYS:
        raise UserError(
            f"{path}: a sweep must have the keys {', '.join(sorted(_KEYS))}, got "
            f"{', '.join(sorted(file or {})) or 'none'}. Try configs/Sweeps/mask_ratio.yaml."
        )
    wrong = [start for start in file.get("starts", []) if start not in STARTS]
    if file["stage"] not in STAGES or wrong or not isinstance(file["values"], list):
        raise UserError(
            f"{path}: stage must be one of {', '.join(STAGES)}, starts some of "
            f"{', '.join(STARTS)}, and values a list, got {file['stage']!r}, "
            f"{file.get('starts')!r} and {file['values']!r}."
        )
    return file


def _chain(
    name: str,
    file: Mapping[str, Any],
    value: Any,
    start: str,
    seed: int,
    output: str,
    overrides: Sequence[str],
) -> Chain:
    settings = value if isinstance(value, dict) else {file["vary"]: value}
    varied = [word for key, one in settings.items() for word in (key, _word(one))]
    common = [*overrides, "RNG_SEED", str(seed)]

    def words(stage: str) -> list[str]:
        mine = varied if stage in STAGES[file["stage"]] else []
        if stage == "pretrain":
            mine = [w for w in mine if not w.startswith("TEST.")]
        return [*common, *(_for_pretraining(mine) if stage == "pretrain" else mine)]

    pretrain = None
    weights: list[str] = []
    if start == PRETRAINED:
        pretrain = _placed(load_config(file["pretrain"], words("pretrain")), output, "pretrain")
        final = checkpoint_path(pretrain.OUTPUT_DIR, pretrain.SOLVER.MAX_EPOCH)
        weights = ["TRAIN.CHECKPOINT_FILE_PATH", final]
    fine_tune = load_config(
        file["fine_tune"], [*words("fine_tune"), *weights, "TEST.ENABLE", "False"]
    )
    fine_tune = _placed(fine_tune, output, "fine_tune")
    final = checkpoint_path(fine_tune.OUTPUT_DIR, fine_tune.SOLVER.MAX_EPOCH)
    test = load_config(
        file["fine_tune"],
        [*words("test"), "TRAIN.ENABLE", "False", "TEST.CHECKPOINT_FILE_PATH", final],
    )
    test = _placed(test, output, "test")
    return Chain(name, shown(value), start, seed, settings, pretrain, fine_tune, test)


def _word(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else ("True" if value else "False")


def _for_pretraining(words: Sequence[str]) -> list[str]:
    """Name the autoencoder where a classifier is named."""
    return [
        f"mae_{word}" if before == "MODEL.MODEL_NAME" else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def _placed(cfg: Config, output: str, stage: str) -> Config:
    """Give a step a folder that its settings name, so that equal steps share it."""
    digest = hashlib.sha256(to_yaml(replace(cfg, OUTPUT_DIR="")).encode()).hexdigest()[:12]
    return replace(cfg, OUTPUT_DIR=os.path.join(output, f"{stage}_{digest}"))
