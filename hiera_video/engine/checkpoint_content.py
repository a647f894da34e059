"""Check what a checkpoint holds before a run resumes from it.

Checksums show that a file is unchanged, not that a run of this program wrote it. PyTorch loads most
wrong content without an error: an optimizer state of another shape makes fused AdamW read past the
end of a tensor.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
import yaml

from hiera_video.checkpoints.distributed import AVERAGE, MODEL, OPTIMIZER

_ADAMW_STATE = ("exp_avg", "exp_avg_sq")


class _Damage(Exception):
    """Says in words what no run can have written."""


def damage_in(content: Mapping[str, Any], named: tuple[int, int], *, on_meta: bool = False) -> str:
    """Return the part of a checkpoint that no run can have written, in words, or "".

    `named` are the epoch and iteration of its name. With `on_meta`, tensors may be on the meta
    device. Whether weights and optimizer fit the run that reads it is not checked here.
    """
    try:
        _require(on_meta or not _has_meta(content), "it holds tensors without data")
        _check_position(content, named)
        _check_random_states(content)
        weights = _tensors(content.get(MODEL), MODEL)
        if AVERAGE in content:
            _check_average(content, weights)
        _check_optimizer(content.get(OPTIMIZER), weights)
        _check_config(content.get("cfg", ""))
        names = content.get("class_names")
        _require(names is None or _is_list_of(names, str), "'class_names' is no list of names")
        _require(_is_count(content.get("bad_steps_in_a_row", 0)), "'bad_steps_in_a_row' is wrong")
    except _Damage as damage:
        return str(damage)
    return ""


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Damage(otherwise)


def _has_meta(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_meta, value.values() if isinstance(value, dict) else value))
    return isinstance(value, torch.Tensor) and value.is_meta


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_list_of(values: object, kind: type) -> TypeGuard[list[Any]]:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _check_position(content: Mapping[str, Any], named: tuple[int, int]) -> None:
    epoch, iteration = content.get("epoch"), content.get("iteration", 0)
    # Under a later name a run would go on from it again, whatever it has saved since.
    _require(
        _is_count(epoch) and _is_count(iteration) and (epoch, iteration) == named,
        f"it holds epoch {epoch!r} and iteration {iteration!r}, its name says {named[0]} and "
        f"{named[1]}",
    )
    if iteration or "num_iterations" in content:
        of = content.get("num_iterations")
        _require(_is_count(of) and iteration < of, f"iteration {iteration} of an epoch of {of!r}")


def _check_random_states(content: Mapping[str, Any]) -> None:
    states = content.get("rng_states")
    if states is None and not content.get("iteration"):
        return  # at the beginning of an epoch generators are seeded
    wrong = "'rng_states' are not the states of random generators"
    if not _is_list_of(states, dict) or not states:
        raise _Damage(wrong)
    for state in states:
        _require("cpu" in state and all(_is_bytes(value) for value in state.values()), wrong)
        try:
            torch.Generator().set_state(state["cpu"])
            if "cuda" in state and torch.cuda.is_available():
                torch.Generator("cuda").set_state(state["cuda"])
        except (RuntimeError, TypeError):
            raise _Damage(wrong) from None


def _is_bytes(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.ndim == 1


def _is_plain(value: object) -> TypeGuard[torch.Tensor]:
    if not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_quantized


def _tensors(state: object, what: str) -> dict[str, torch.Tensor]:
    """Return a state dict; raises _Damage unless all its values are plain tensors."""
    if not isinstance(state, dict):
        raise _Damage(f"{what!r} is no state dict")
    for name, value in state.items():
        plain = isinstance(name, str) and _is_plain(value)
        _require(plain, f"{name!r} in {what!r} is no plain tensor")
    return state


def _check_average(content: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
    average = _tensors(content[AVERAGE], AVERAGE)
    _require(average.keys() == weights.keys(), f"{AVERAGE!r} has other names than {MODEL!r}")
    for name, value in average.items():
        _check_shape(value, weights[name], f"{name!r} in {AVERAGE!r}")
    _require(_is_count(content.get("ema_steps", 0)), "'ema_steps' is no number of steps")


def _check_shape(value: object, weight: torch.Tensor, what: str) -> None:
    if not _is_plain(value):
        raise _Damage(f"{what} is no plain tensor")
    _require(
        value.shape == weight.shape and value.is_floating_point() == weight.is_floating_point(),
        f"{what} is {value.dtype} {tuple(value.shape)}, of a weight that is {weight.dtype} "
        f"{tuple(weight.shape)}",
    )


def _check_optimizer(saved: object, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise _Damage unless the optimizer's state fits the weights that its groups name."""
    what = repr(OPTIMIZER)
    if not isinstance(saved, dict):
        raise _Damage(f"{what} is no state of an optimizer")
    groups, states = saved.get("param_groups"), saved.get("state")
    if not _is_list_of(groups, dict) or not isinstance(states, dict):
        raise _Damage(f"{what} lacks a part")
    left = dict(states)
    for group in groups:
        numbers, names = group.get("params"), group.get("names")
        _require(
            _is_list_of(numbers, int) and _is_list_of(names, str) and len(numbers) == len(names),
            f"a group in {what} does not name its weights",
        )
        _require(isinstance(group.get("lr_scale"), float | int), f"a group in {what} has no scale")
        for number, name in zip(numbers, names, strict=True):
            _require(name in weights, f"{what} has a weight that is not there: {name!r}")
            if (state := left.pop(number, None)) is not None:
                _check_moments(state, weights[name], f"{name!r} in {what}", adamw="betas" in group)
    _require(not left, f"{what} has more states than weights")


def _check_moments(state: object, weight: torch.Tensor, what: str, *, adamw: bool) -> None:
    if not isinstance(state, dict):
        raise _Damage(f"{what} is no state")
    if not adamw:
        if state.get("momentum_buffer") is not None:
            _check_shape(state["momentum_buffer"], weight, f"the momentum of {what}")
        return
    for moment in _ADAMW_STATE:
        _check_shape(state.get(moment), weight, f"{moment} of {what}")
    step = state.get("step")
    if isinstance(step, torch.Tensor):
        _require(step.shape == () and step.is_floating_point(), f"the step of {what} is no number")
        step = 0 if step.is_meta else step.item()
    right = isinstance(step, float | int) and math.isfinite(step) and step >= 0
    _require(right, f"the step of {what} is {step!r}")


def _check_config(text: object) -> None:
    wrong = "'cfg' is not the text of a config"
    _require(isinstance(text, str), wrong)
    try:
        content = yaml.safe_load(str(text))
    except (yaml.YAMLError, RecursionError, ValueError):
        raise _Damage(wrong) from None
    _require(content is None or isinstance(content, dict), wrong)
