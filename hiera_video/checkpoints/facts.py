"""Check the JSON files of an exported folder, field by field."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from hiera_video.checkpoints.unwrap import shown
from hiera_video.utils.errors import UserError

Rule = tuple[str, Callable[[Any], bool]]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_list_of(check: Callable[[Any], bool], *sizes: int) -> Callable[[Any], bool]:
    def is_list(value: Any) -> bool:
        right_size = isinstance(value, list) and (not sizes or len(value) in sizes)
        return right_size and all(map(check, value))

    return is_list


# The limit on the blocks of a model, over all stages. The largest published model has 48.
_MAX_BLOCKS = 1000

_TEXT: Rule = ("text", _is_text)
_COUNT: Rule = ("a whole number of 1 or more", _is_count)
_COLOURS: Rule = ("a list of 3 numbers", _is_list_of(_is_number, 3))
_CLIPS: Mapping[str, Rule] = {
    "shape": ("a list of channels, frames, height and width", _is_list_of(_is_count, 3, 4)),
    "sampling": _TEXT,
    "sampling_rate": _COUNT,
    "target_fps": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "mean": _COLOURS,
    "std": _COLOURS,
    "num_clips": _COUNT,
    "num_crops": _COUNT,
}
_FIELDS: Mapping[str, Rule] = {
    "model_name": _TEXT,
    "class_names": ("a list of names", _is_list_of(_is_text)),
    "clips": ("an object", lambda value: isinstance(value, dict)),
    "outputs": ("logits or reconstruction", lambda value: value in ("logits", "reconstruction")),
    "checkpoint": _TEXT,
    "licence": ("text or null", lambda value: value is None or _is_text(value)),
    "hiera_video": _TEXT,
    "torch": _TEXT,
    "origin": ("an object", lambda value: isinstance(value, dict)),
}


def check_facts(facts: Mapping[str, Any], *, source: str) -> None:
    """Raise a UserError for the first field of a wrong type; the message starts with `source`.

    All fields are optional. Unknown fields are ignored: a later version may have written them.
    """
    for name, rule in _FIELDS.items():
        _check(facts, name, rule, shown_as=name, source=source)
    for name, rule in _CLIPS.items():
        _check(facts.get("clips", {}), name, rule, shown_as=f"clips.{name}", source=source)


def check_settings(settings: Mapping[str, Any], model_class: type, *, source: str) -> None:
    """Raise a UserError for the first setting of a type that `model_class` does not accept.

    Unknown names are left to the class itself. The message starts with `source`.
    """
    hints: dict[str, Any] = {}
    for base in reversed(model_class.__mro__):
        if "__init__" in base.__dict__:
            hints |= get_type_hints(base.__dict__["__init__"])
    for name in settings:
        if rule := _SETTINGS.get(hints.get(name)):
            _check(settings, name, rule, shown_as=name, source=source)
    if sum(settings.get("stages", ())) > _MAX_BLOCKS:
        raise UserError(
            f"{source}: stages must have at most {_MAX_BLOCKS} blocks in all, got "
            f"{shown(repr(settings['stages']))}."
        )


_SETTINGS: Mapping[Any, Rule] = {
    bool: ("true or false", lambda value: type(value) is bool),
    int: ("a whole number", lambda value: type(value) is int),
    float: ("a number", _is_number),
    str: _TEXT,
    Sequence[int]: ("a list of whole numbers", _is_list_of(lambda value: type(value) is int)),
    Sequence[bool]: ("a list of true and false", _is_list_of(lambda value: type(value) is bool)),
}


def _check(
    content: Mapping[str, Any], name: str, rule: Rule, *, shown_as: str, source: str
) -> None:
    must_be, is_right = rule
    if name in content and not is_right(content[name]):
        raise UserError(
            f"{source}: {shown_as} must be {must_be}, got {shown(repr(content[name]))}. Try "
            "exporting the model again (tools/export.py)."
        )
