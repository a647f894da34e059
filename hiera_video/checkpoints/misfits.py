"""Check that a state dict fits a model: names, shapes, kinds of dtype and finite values."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from hiera_video.checkpoints.unwrap import shown
from hiera_video.utils.errors import UserError

_NAMED = 2  # number of tensors of each kind that a message names


class Misfits(NamedTuple):
    """The reasons why a state dict cannot be loaded, one text per tensor.

    `shapes`, `missing` and `unexpected` point to another model, `values` to a damaged file.
    """

    shapes: list[str]
    missing: list[str]
    unexpected: list[str]
    values: list[str]

    def refuse_to_start(self, path: str, *, key: str) -> None:
        """Raise like `refuse`, but accept unexpected tensors if shapes and names fit otherwise."""
        fits = not (self.shapes or self.missing)
        (self._replace(unexpected=[]) if fits else self).refuse(path, key=key)

    def refuse(self, path: str, *, key: str) -> None:
        """Raise a UserError if there is any misfit; the message names `path` and `key`."""
        kinds = (self.shapes, self.missing, self.unexpected)
        if num_others := sum(map(len, kinds)):
            named = [text for kind in kinds for text in kind[:_NAMED]]
            raise UserError(
                f"{key}: {path!r} is a checkpoint of another model than the one configured: "
                f"{_joined(named, num_others)}. Try the MODEL and DATA keys it was trained with "
                "(config.yaml in its OUTPUT_DIR)."
            )
        if self.values:
            raise UserError(
                f"{key}: {path!r} must hold finite numbers of the model's kind, got others: "
                f"{_joined(self.values[:_NAMED], len(self.values))}. Try an older checkpoint, or "
                "one that is not quantised."
            )


def find_misfits(
    model: nn.Module, theirs: Mapping[str, torch.Tensor], names: Iterable[str] | None = None
) -> Misfits:
    """Compare the tensors `names` of `model` (None: all tensors) with the file's tensors `theirs`.

    Tensors of the file that the model does not have are unexpected. Values are checked only if
    `theirs` have data. The model's tensors may be on the meta device.
    """
    ours = model.state_dict()
    found = Misfits([], [], [], [])
    for name in ours if names is None else names:
        if name not in theirs:
            found.missing.append(f"{name} is missing")
        elif ours[name].shape != theirs[name].shape:
            there, here = tuple(theirs[name].shape), tuple(ours[name].shape)
            found.shapes.append(f"{name} is {there} there and {here} here")
        elif oddity := _odd_values(ours[name], theirs[name]):
            found.values.append(f"{name} {oddity}")
    found.unexpected.extend(f"{shown(name)} is unknown here" for name in theirs if name not in ours)
    return found


def _odd_values(own: torch.Tensor, other: torch.Tensor) -> str:
    if _kind(own.dtype) != _kind(other.dtype):
        there, here = (str(tensor.dtype).removeprefix("torch.") for tensor in (other, own))
        return f"is {there} there and {here} here"
    if other.is_meta or not own.is_floating_point():
        return ""
    other = other.to(own.dtype)  # loading casts too, and a value may overflow
    if other.isfinite().all():
        return ""
    return "holds NaN" if other.isnan().any() else "holds infinite numbers"


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point:
        return "floating"
    return "complex" if dtype.is_complex else "bool" if dtype is torch.bool else "integer"


def _joined(named: list[str], number: int) -> str:
    more = f"; and {number - len(named)} more" if number > len(named) else ""
    return "; ".join(named) + more
