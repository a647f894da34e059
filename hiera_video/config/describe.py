"""Write a config as plain values, as YAML, as differences from the defaults, or as help."""

import dataclasses
from typing import Any

import yaml

from hiera_video.config.rules import rule_text, value_text
from hiera_video.config.schema import Config, key_specs, sections

SOURCES = (
    '[P] Ryali et al., "Hiera: A Hierarchical Vision Transformer without the '
    'Bells-and-Whistles", ICML 2023',
    '[ST] Feichtenhofer et al., "Masked Autoencoders As Spatiotemporal Learners", NeurIPS 2022',
)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """Write sections in block style and each list on one line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        return super().represent_sequence(tag, sequence, flow_style=True)


def to_dict(cfg: Config) -> dict[str, Any]:
    """Return the config as nested dicts of plain values, with lists for tuples."""
    plain: dict[str, Any] = _plain(cfg)
    return plain


def to_yaml(cfg: Config) -> str:
    """Return YAML in the order of the schema; `load_config` turns it into an equal config."""
    text: str = yaml.dump(
        to_dict(cfg), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True
    )
    return text


def value_of(cfg: Config, name: str) -> Any:
    """Return the value of a dotted key. Raises AttributeError if there is no such key."""
    value: Any = cfg
    for part in name.split("."):
        value = getattr(value, part)
    return value


def diff_from_defaults(cfg: Config) -> dict[str, Any]:
    """Return {dotted name: plain value} of the keys that differ from their defaults."""
    values = {name: value_of(cfg, name) for name in key_specs()}
    return {
        name: _plain(value) for name, value in values.items() if value != key_specs()[name].default
    }


def help_text() -> str:
    """Return a list of all keys as text, with default, meaning, unit, rule and source."""
    lines = []
    section = None
    for spec in key_specs().values():
        if (prefix := spec.name.rpartition(".")[0]) != section:
            section = prefix
            doc = (sections()[prefix].__doc__ or "").strip() if prefix else "Keys of the run."
            lines += ["", f"{prefix or 'top level'}: {doc}"]
        unit = f" [{spec.key.unit}]" if spec.key.unit else ""
        source = f" Source: {spec.key.source}." if spec.key.source else ""
        lines.append(f"  {spec.name} {value_text(spec.default)}{unit}")
        lines.append(f"      {spec.key.help} Must be {rule_text(spec)}.{source}")
    return "\n".join([*lines[1:], "", *SOURCES]) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value
