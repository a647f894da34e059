"""List the config keys in which runs differ from the defaults, and from one another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hiera_video.config import diff_from_defaults
from hiera_video.config.describe import value_of
from hiera_video.config.rules import value_text
from hiera_video.config.schema import key_specs
from hiera_video.report.parts import Missing
from hiera_video.report.run_files import Run


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A key that at least one run changes from its default; `values` holds one value per run.

    `help` explains the key; `differs` says whether the runs have different values.
    """

    key: str
    help: str
    default: str
    values: Sequence[str]
    at_default: Sequence[bool]
    differs: bool


def setting_rows(runs: Sequence[Run]) -> list[SettingRow]:
    """Return the keys that differ, in the order of the schema; a missing config shows "?"."""
    configs = [run.config for run in runs]
    changed: dict[str, Any] = {}
    for config in configs:
        if not isinstance(config, Missing):
            changed |= diff_from_defaults(config)
    rows = []
    for key, spec in key_specs().items():
        if key not in changed:
            continue
        values = [
            "?" if isinstance(config, Missing) else value_text(value_of(config, key))
            for config in configs
        ]
        default = value_text(spec.default)
        unit = f" [{spec.key.unit}]" if spec.key.unit else ""
        rows.append(
            SettingRow(
                key=key,
                help=spec.key.help + unit,
                default=default,
                values=values,
                at_default=[value == default for value in values],
                differs=len({value for value in values if value != "?"}) > 1,
            )
        )
    return rows
