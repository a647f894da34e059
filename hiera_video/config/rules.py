"""The meaning and the valid values of a config key, and the parsing of values that people write.

Each field of `schema.py` has a `Key` in its `Annotated` type. All functions here work from that
`Key`, so one declaration gives a new key its type check, its rule, its message and its help.
"""

import ast
import math
import os
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiera_video.utils.lookup import closest, module_names

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Key:
    """Meaning and rule of one config key.

    The bounds apply to each entry of a list. `modules_of` names a folder of the package, such as
    "data/datasets": the value is then the name of a module in it, or one of `choices`. With
    `taking`, the module must define a function that takes these keywords. `length` is the number of
    entries of a list, `ending` the required end of a file name. With `is_path`, a leading `~`
    becomes the home folder.
    """

    help: str
    _: KW_ONLY
    unit: str = ""
    source: str = ""
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    modules_of: str = ""
    taking: tuple[str, ...] = ()
    length: int | None = None
    ending: str = ""
    is_path: bool = False
    nonempty: bool = False


@dataclass(frozen=True)
class KeySpec:
    """A config key with its place in the tree: `name` is dotted, `kind` is the type of its value.

    `kind` is bool, int, float, str or tuple; a tuple holds floats.
    """

    name: str
    kind: type
    default: Any
    key: Key


def read_value(spec: KeySpec, raw: object) -> Any:
    """Convert a value from a YAML file or a command line to the key's type and check it.

    An int is accepted for a float, and a list or its text for a tuple. Text is accepted for a
    number if it spells one ("8e-4", which YAML reads as text). A bool is not a number. Raises
    ValueError with the message for the user.
    """
    try:
        value = _CONVERTERS[spec.kind](raw)
    except (*_NOT_READ, RecursionError, MemoryError):
        raise ValueError(_complaint(spec, raw)) from None
    if spec.key.is_path and isinstance(value, str):
        value = os.path.expanduser(value)
    if not _in_rule(spec.key, value):
        raise ValueError(_complaint(spec, value))
    return value


def rule_text(spec: KeySpec) -> str:
    """Describe the valid values of a key in words that follow "must be"."""
    key = spec.key
    if key.modules_of:
        names = ", ".join(_modules(key))
        rule = f"the name of a module in hiera_video/{key.modules_of} ({names})"
        return " or ".join([*map(repr, key.choices), rule])
    if key.choices:
        return ("one of " if len(key.choices) > 1 else "") + ", ".join(map(repr, key.choices))
    if key.ending:
        return f"a file name that ends in {key.ending}"
    if spec.kind is tuple:
        bounds = _bounds_text(key)
        return f"a list of {key.length} numbers" + (f", each{bounds}" if bounds else "")
    if spec.kind is str:
        return "text that is not empty" if key.nonempty else "text"
    return _KIND_TEXT[spec.kind] + _bounds_text(key)


def value_text(value: object) -> str:
    """Write a value as in a YAML file, shortened if it is long."""
    if value is None:
        return "nothing"
    try:
        text = repr(list(value) if isinstance(value, tuple) else value)
    except ValueError:  # Python refuses to print an integer of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."


# Exceptions of the converters; OverflowError for integers beyond the range of a float.
_NOT_READ = (ValueError, TypeError, SyntaxError, OverflowError)
_KIND_TEXT = {bool: "True or False", int: "an integer", float: "a number"}


def _to_bool(raw: object) -> bool:
    if isinstance(raw, str) and raw.casefold() in ("true", "false"):
        return raw.casefold() == "true"
    if not isinstance(raw, bool):
        raise TypeError(raw)
    return raw


def _to_int(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise TypeError(raw)
    return int(raw)


def _to_float(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise TypeError(raw)
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError(raw)
    return value


def _to_str(raw: object) -> str:
    if not isinstance(raw, str):
        raise TypeError(raw)
    return raw


def _to_floats(raw: object) -> tuple[float, ...]:
    if isinstance(raw, str):
        raw = ast.literal_eval(raw.strip())
    if not isinstance(raw, list | tuple):
        raise TypeError(raw)
    return tuple(_to_float(item) for item in raw)


_CONVERTERS = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str, tuple: _to_floats}


def _modules(key: Key) -> list[str]:
    # List the files instead of importing them: config/ must not import the packages above it.
    return module_names(str(PACKAGE / key.modules_of), taking=key.taking)


def _in_rule(key: Key, value: Any) -> bool:
    if key.modules_of:
        return value in key.choices or value in _modules(key)
    if key.choices:
        return value in key.choices
    if isinstance(value, str):
        return value.endswith(key.ending) and bool(value.strip() or not key.nonempty)
    if isinstance(value, tuple):
        return len(value) == key.length and all(_in_bounds(key, item) for item in value)
    return _in_bounds(key, value)


def _in_bounds(key: Key, value: float) -> bool:
    return (
        (key.minimum is None or value >= key.minimum)
        and (key.above is None or value > key.above)
        and (key.maximum is None or value <= key.maximum)
        and (key.below is None or value < key.below)
    )


def _bounds_text(key: Key) -> str:
    lower = [("at least", key.minimum), ("above", key.above)]
    upper = [("at most", key.maximum), ("below", key.below)]
    bounds = [f"{words} {bound:.10g}" for words, bound in lower + upper if bound is not None]
    text = " and ".join(bounds)
    return f" of {text}" if text.startswith("at ") else text and f" {text}"


def _complaint(spec: KeySpec, got: object) -> str:
    rule = rule_text(spec)
    return f"{spec.name} must be {rule}, got {value_text(got)}.{_advice(spec, got)}"


def _advice(spec: KeySpec, got: object) -> str:
    options = list(spec.key.choices) + (_modules(spec.key) if spec.key.modules_of else [])
    if options and all(isinstance(option, str) for option in options):
        near = closest(got if isinstance(got, str) else value_text(got), options)
        if near:
            return near
    # As in "5GB" or "10m".
    has_unit = isinstance(got, str) and got[:1].isdigit() and got[-1:].isalpha()
    alone = f" Write the number alone, in {spec.key.unit}." if has_unit and spec.key.unit else ""
    return f"{alone} Try {value_text(_candidate(spec, got))}."


def _candidate(spec: KeySpec, got: object) -> object:
    """Return the valid value nearest to what the user seems to mean, else the default."""
    attempts: Sequence[object] = ()
    if spec.kind is int and isinstance(got, float | str):
        attempts = (_whole(got),)
    elif spec.kind is str and isinstance(got, int | float) and not isinstance(got, bool):
        attempts = (value_text(got),)
    elif spec.kind is tuple and isinstance(got, int | float | str):
        attempts = ([got] * (spec.key.length or 1),)
    for attempt in attempts:
        try:
            value = _CONVERTERS[spec.kind](attempt)
        except _NOT_READ:
            continue
        if _in_rule(spec.key, value):
            return value
    return spec.default


def _whole(number: float | str) -> int | None:
    try:
        value = float(number)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None
