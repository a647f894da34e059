"""Make damaged checkpoints and exported folders, reproducible by number.

`checkpoint_mutant` makes files to read as weights or to resume from, `folder_mutant` folders for
`from_pretrained`. In a third of both, bytes are damaged, as mutants.py does with videos. The
others are valid files with invalid content.
"""

import copy
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutants import _DAMAGE

Content = dict[str, Any]
_YAML_BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
_VALUES: tuple[Any, ...] = (
    *(None, 5, -1, 10**30, 1.5, float("nan"), True, "", "x\n\x1b[31m\ud800", [], [1], {}, {"a": 1}),
    *({0: 1}, (1, 2), b"\x00", torch.ones(3), {"state": {}, "param_groups": []}),
)
_CONFIGS = (
    *(_YAML_BOMB, "_BASE_: http://127.0.0.1:1/a.yaml\n", "_BASE_: /etc/hostname\n", "- [", "x"),
    *("[" * 300, "a: &a {b: *a}\n", "MODEL: 5\n", "MASK: {DECODER_NUM_HEADS: [1]}\n", "\x00"),
)
_TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "int8": lambda t: t.to(torch.int8),
    "bool": lambda t: t.bool(),
    "complex": lambda t: t.to(torch.complex64),
    "half": lambda t: t.half(),
    "nan": lambda t: t * torch.nan,
    "inf": lambda t: torch.full_like(t, torch.inf),
    "too large": lambda t: torch.full_like(t, 1e300, dtype=torch.float64),
    "meta": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "quantised": lambda t: torch._empty_affine_quantized(
        t.shape, scale=0.1, zero_point=0, dtype=torch.qint8
    ),
    "expanded": lambda t: torch.ones(()).expand(t.shape),
    "immense": lambda t: torch.ones(()).expand(1, 10**12, t.shape[-1] if t.dim() else 1),
    "empty": lambda t: t[:0],
    "scalar": lambda t: torch.ones(()),
    "transposed": lambda t: t.flatten(),
    "no tensor": lambda t: 3.0,
    "list": lambda t: t.flatten()[:3].tolist(),
}


def checkpoint_mutant(number: int, seed: int, content: Content) -> tuple[str, bytes]:
    """Return the name of file `number` for `seed`, which describes the damage, and its bytes.

    `content` is the object that a run's checkpoint holds, before torch.save.
    """
    rng = np.random.default_rng([seed, number])
    if number % 3 == 0:
        kind = list(_DAMAGE)[number // 3 % len(_DAMAGE)]
        whole = _saved(content)
        return f"{number:05d} bytes {kind}", _DAMAGE[kind](whole, rng, whole[::-1])
    kind = list(_CONTENTS)[number % len(_CONTENTS)]
    told, data = _CONTENTS[kind](copy.deepcopy(content), rng)
    return f"{number:05d} {kind} {told}", data


def folder_mutant(number: int, seed: int, source: Path, target: Path) -> str:
    """Make folder `number` for `seed` from an exported one; return a description of the damage."""
    rng = np.random.default_rng([seed, number])
    shutil.copytree(source, target)
    file = target / ("config.json", "model.safetensors", "hiera_video.json")[number % 3]
    if file.suffix == ".safetensors" or number % 2:
        kind = list(_DAMAGE)[number // 6 % len(_DAMAGE)]
        whole = file.read_bytes()
        file.write_bytes(_DAMAGE[kind](whole, rng, whole[::-1]))
        return f"{number:05d} bytes {kind} {file.name}"
    settings = json.loads(file.read_text())
    place = settings.get("clips", settings) if rng.random() < 0.5 else settings
    name = list(place)[rng.integers(len(place))]
    values = (None, 5, -1, 10**30, 1.5, True, "x\n\x1b[31m\ud800", [], [1], [[1]], {}, {"a": 1})
    place[name] = values[rng.integers(len(values))]
    file.write_text(json.dumps(settings))
    if rng.random() < 0.1:
        file.write_text("[" * 100_000)
        return f"{number:05d} nested {file.name}"
    return f"{number:05d} {file.name} {name} {place[name]!r}"


def _saved(content: Mapping[Any, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(dict(content), file)
    return file.getvalue()


def _pick(rng: np.random.Generator, of: Any) -> Any:
    return list(of)[rng.integers(len(list(of)))]


def _value(content: Content, rng: np.random.Generator) -> tuple[str, bytes]:
    """Replace the value of a key by a value of any kind, or remove it."""
    key = _pick(rng, content)
    content[key] = _pick(rng, _VALUES)
    if rng.random() < 0.15:
        del content[key]
    return str(key), _saved(content)


def _config(content: Content, rng: np.random.Generator) -> tuple[str, bytes]:
    content["cfg"] = _pick(rng, _CONFIGS)
    return content["cfg"][:20].encode("unicode_escape").decode(), _saved(content)


def _tensor(content: Content, rng: np.random.Generator) -> tuple[str, bytes]:
    state = content[_pick(rng, [key for key in ("model_state", "ema_state") if key in content])]
    name, kind = _pick(rng, state), _pick(rng, _TENSORS)
    state[name] = _TENSORS[kind](state[name])
    return f"{kind} {name}", _saved(content)


def _names(content: Content, rng: np.random.Generator) -> tuple[str, bytes]:
    """Rename, remove or add a weight, or nest all of them under another name."""
    state = content["model_state"]
    name, how = _pick(rng, state), rng.integers(5)
    value = state.pop(name)
    if how == 0:
        state[int(rng.integers(9))] = value
    elif how == 1:
        state[f"{name}\n\x1b[31m"] = value
    elif how == 2:
        state |= {name: value, "x" * 10_000: value}
    elif how == 3:
        state = {f"module.{n}": v for n, v in {**state, name: value}.items()}
        content = {"state_dict": state, "optimizer": [1]}
    return f"{how} {name}", _saved(content)


def _optimizer(content: Content, rng: np.random.Generator) -> tuple[str, bytes]:
    """Damage the state of the optimizer or its parameter groups."""
    state, how = content["optimizer_state"], int(rng.integers(6))
    group, number = _pick(rng, state["param_groups"]), _pick(rng, state["state"] or [0])
    if how == 0:
        content["optimizer_state"] = _pick(rng, _VALUES)
    elif how == 1:
        group.pop(_pick(rng, group))
    elif how == 2:
        group[_pick(rng, group)] = _pick(rng, _VALUES)
    elif how == 3:
        state["state"].pop(number, None)
    elif how == 4:
        state["state"][number] = _pick(rng, _VALUES)
    elif state["state"]:
        inner = state["state"][number]
        key = _pick(rng, [name for name, value in inner.items() if torch.is_tensor(value)])
        inner[key] = _TENSORS[_pick(rng, _TENSORS)](inner[key])
    return str(how), _saved(content)


def _zip(content: Content, rng: np.random.Generator) -> tuple[str, bytes]:
    """Repack the file compressed, or without one of its records."""
    packed, without = io.BytesIO(), int(rng.integers(8))
    compressed = rng.random() < 0.5
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(_saved(content))) as old, zipfile.ZipFile(packed, "w") as new:
        for index, name in enumerate(old.namelist()):
            if compressed or index != without:
                new.writestr(name, old.read(name), kind)
    return "compressed" if compressed else f"without record {without}", packed.getvalue()


_CONTENTS: dict[str, Callable[[Content, np.random.Generator], tuple[str, bytes]]] = {
    "value": _value,
    "config": _config,
    "tensor": _tensor,
    "names": _names,
    "optimizer": _optimizer,
    "zip": _zip,
    "more tensors": _tensor,  # twice as often, since it covers the most cases
}
