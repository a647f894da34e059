"""Find the state dict in a checkpoint, and remove the prefixes that wrappers add to its names.

PyTorch's wrappers add prefixes to the names of weights ("module.", "_orig_mod."). Trainers store
the state dict under a key ("state_dict", "model", "ema") and the model as an attribute ("model.").
The search matches the model's own names, so it needs no list of wrappers.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from hiera_video.utils.errors import UserError

# A name that every Hiera has. It identifies the weights if no model is given.
_TELL_TALE = ("patch_embed.proj.weight",)
# torch.compile and FSDP add these to the name of any submodule, not only the outermost one.
_WITHIN = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.")
_RUN_KEYS = ("model_state", "ema_state")
_AVERAGE = re.compile(r"(^|[._])ema($|[._])", re.IGNORECASE)
_MAX_DEPTH = 4


class Unwrapped(NamedTuple):
    """A state dict with the model's names.

    `how` describes where the state dict was found and what was removed from its names ("" if it was
    not wrapped). `average` describes the average that the weights are ("" if they are no average).
    """

    state: dict[str, torch.Tensor]
    how: str = ""
    average: str = ""


class _Candidate(NamedTuple):
    keys: tuple[str, ...]  # its path in the file
    state: dict[str, torch.Tensor]
    prefix: str
    num_known: int  # number of names that the model has too
    renamed: bool

    @property
    def is_average(self) -> bool:
        return any(_AVERAGE.search(word) for word in (*self.keys, self.prefix))


def unwrap(content: Mapping[str, Any], names: Collection[str] | None = None) -> Unwrapped:
    """Find the weights in a checkpoint's `content`, which may itself be a state dict.

    `names` are the names in the model's state dict (None: those that any Hiera has). Averaged
    weights are preferred to others, as in timm's evaluation. Names that no wrapper explains stay
    unchanged; the caller rejects them.
    """
    if "model_state" in content:  # a checkpoint of a run of ours, or of PySlowFast
        content = {key: content[key] for key in _RUN_KEYS if content.get(key)}
    found = [
        _without_wrapper(keys, state, frozenset(names if names is not None else _TELL_TALE))
        for keys, state in state_dicts(content)
    ]
    if not found:
        return Unwrapped({})
    best = max(found, key=lambda c: (c.num_known, c.is_average, len(c.state)))
    start = len(best.prefix)
    state = {n[start:]: value for n, value in best.state.items() if n.startswith(best.prefix)}
    return Unwrapped(state, _how(best, len(best.state) - len(state)), _average(best))


def state_dicts(
    content: Mapping[str, Any],
) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """Yield each mapping of names to tensors in a checkpoint, with its path of keys."""
    seen: set[int] = set()
    queue: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), content)]
    for keys, node in queue:
        state = {name: value for name, value in node.items() if isinstance(value, torch.Tensor)}
        if state:
            yield keys, state
        for name, value in node.items():
            if (
                isinstance(value, dict)
                and not name.startswith("optimizer")
                and len(keys) < _MAX_DEPTH
                and id(value) not in seen
                and all(isinstance(inner, str) for inner in value)
            ):
                seen.add(id(value))
                queue.append(((*keys, name), value))


def _without_wrapper(
    keys: tuple[str, ...], state: dict[str, torch.Tensor], names: frozenset[str]
) -> _Candidate:
    plain = {_WITHIN.sub("", name): value for name, value in state.items()}
    counts: Counter[str] = Counter()
    for name in plain:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in names:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    prefix = max(counts, key=lambda p: (counts[p], bool(_AVERAGE.search(p)), -len(p)), default="")
    return _Candidate(keys, plain, prefix, counts[prefix], plain.keys() != state.keys())


def _how(found: _Candidate, num_beside: int) -> str:
    keys = () if found.keys[:1] and found.keys[0] in _RUN_KEYS else found.keys
    parts = []
    if keys:
        parts.append(f"taken from {' > '.join(map(shown, keys))}")
    if found.renamed:
        parts.append("without the words that torch.compile or FSDP put into names")
    if found.prefix:
        parts.append(f"without {shown(found.prefix)!r} before each name")
    if num_beside:
        parts.append(f"{num_beside} other tensors not used")
    return f"unwrapped: {', '.join(parts)}" if parts else ""


def _average(found: _Candidate) -> str:
    if not found.is_average:
        return ""
    own = found.keys == ("ema_state",)
    return "they are the average that the run kept (TRAIN.EMA_DECAY)" if own else "averaged weights"


def shown(name: str) -> str:
    """Escape and shorten a name from a file, so that it fits on one line of a message."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def refuse_odd_content(content: Mapping[Any, Any], path: str, *, key: str) -> None:
    """Raise a UserError unless a checkpoint has text names and dense tensors.

    Sparse, quantised and nested tensors are rejected, and so are tensors without data (on the meta
    device) or with less memory than their shape needs. The message names `path` and `key`.
    """
    for part in _RUN_KEYS:
        if not isinstance(content.get(part, {}), dict):
            raise UserError(
                f"{key}: {path!r} must have a state dict under {part!r}, got a "
                f"{type(content[part]).__name__}. Try another checkpoint."
            )
    for node in (content, *(content.get(part, {}) for part in _RUN_KEYS)):
        for name in node:
            if not isinstance(name, str):
                raise UserError(
                    f"{key}: {path!r} must have names for its weights, got the key "
                    f"{shown(repr(name))}. Try saving it again as a state dict."
                )
    for where, value in _tensors(content):
        if oddity := _oddity(value):
            raise UserError(
                f"{key}: {path!r} must hold ordinary dense tensors, got {oddity}: {where}. Try "
                "saving it again from a model on the CPU."
            )


def _tensors(content: Mapping[Any, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [("", content)]
    while queue:
        where, node = queue.pop()
        if isinstance(node, torch.Tensor):
            yield where, node
        elif isinstance(node, (dict, list, tuple)) and id(node) not in seen:
            seen.add(id(node))
            inner = node.items() if isinstance(node, dict) else enumerate(node)
            queue += [(f"{where} > {shown(str(n))}"[-200:].lstrip("> "), v) for n, v in inner]


def _oddity(value: torch.Tensor) -> str:
    if value.is_meta:
        return "one without data (meta)"
    if value.layout is not torch.strided:
        return f"a sparse one ({str(value.layout).removeprefix('torch.')})"
    if value.is_quantized:
        return f"a quantised one ({str(value.dtype).removeprefix('torch.')})"
    if value.is_nested or type(value) not in (torch.Tensor, torch.nn.Parameter):
        return f"a {'NestedTensor' if value.is_nested else type(value).__name__}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"one of {tuple(value.shape)} with less memory than that"
    return ""
