"""Make hostile configs, weights, lists and shard indexes, reproducible by number and seed.

Every function takes a random generator and returns the input of a case: words, text, bytes or an
object.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

Rng = np.random.Generator

# Values that a person may type by mistake, or an attacker on purpose.
WORDS = (  # noqa: SIM905
    "0 -1 1 2 3 16 0.5 -0.5 1e30 -1e30 1e-400 1e400 nan inf -inf True false yes no None null ~ "
    "0x10 0b1 1_000 1:30 2026-01-01 tube random adamw sgd cuda auto pyav kinetics hiera_mae "
    "rand-m7-mstd0.5-inc1 rand-m99-n10000 rand- ../.. /etc/passwd file:///etc/passwd ~root/x "
    "http://127.0.0.1:9/x http://[ s3:// reference://x :: @ ` % & * ! | > - ? : # { } [ ] , "
    "[] [1] [1,2,3] [0.45,0.45,0.45] [[1]] [nan,1,1] {} {a:1} [1, '' \"\" 'a' \"b\" &a *a "
    "!!python/object/apply:os.system [true] !!binary aGk= <<:"
).split(" ")
STRANGE = [
    "9" * 400,
    "1" + "0" * 30,
    "-" + "9" * 4400,
    "",
    " ",
    "\t",
    "\0",
    "a\0b",
    "\ud800",
    "\u202e\u0000",
    "\x1b[31mred",
    "é",
    "日本語",
    "🎬" * 100,
    "a" * 5000,
    "[" * 2000,
    "{" * 300,
    "a: b: c",
    "'unclosed",
    "\ufeff",
    "line\nbreak",
]
KEYS = ("DATA", "MODEL.", ".", "", "A.B.C", "__class__", "DATA.__init__", "_BASE_", "_base_", "cfg")
FOREIGN_KEYS = (  # noqa: SIM905
    "MVIT.DEPTH SLOWFAST.ALPHA RESNET.DEPTH DETECTION.ENABLE AVA.FRAME_DIR NUM_SHARDS SHARD_ID "
    "INIT_METHOD BN.NORM_TYPE MULTIGRID.SHORT_CYCLE CONTRASTIVE.T DATA.USE_OFFSET_SAMPLING "
    "TRAIN.MIXED_PRECISION SOLVER.STEPS SOLVER.LRS VIS_MASK.ENABLE DEMO.ENABLE"
).split(" ")


def pick(rng: Rng, items: Sequence[Any]) -> Any:
    """Return one of the items, which may be of any type."""
    return items[int(rng.integers(len(items)))]


def word(rng: Rng) -> str:
    """Return a value as text."""
    kind = rng.random()
    if kind < 0.55:
        return pick(rng, WORDS)
    if kind < 0.75:
        return pick(rng, STRANGE)
    if kind < 0.9:
        return str(int(10 ** rng.uniform(0, 6)) * int(pick(rng, (1, 1, -1))))
    return repr(float(rng.normal() * 10 ** rng.uniform(-6, 6)))


def value(rng: Rng, like: Any) -> str:
    """Return a value as text, mostly of the type of `like`, near to it or far from it."""
    if rng.random() < 0.35:
        return word(rng)
    if isinstance(like, bool):
        return str(bool(rng.random() < 0.5))
    if isinstance(like, int):
        return str(
            round(like * pick(rng, (0, 0.5, 1, 2, 3, 1000, -1))) + int(pick(rng, (0, 1, -1)))
        )
    if isinstance(like, float):
        return repr(like * pick(rng, (0, 0.5, 1, 2, 1e-9, 1e9, -1)) + pick(rng, (0, 0, 0.5, 1)))
    if isinstance(like, tuple | list):
        values = [value(rng, one) for one in like] + ["1"] * (rng.random() < 0.1)
        return f"[{','.join(values)}]"
    return pick(rng, (str(like), word(rng)))


def key(rng: Rng, known: Sequence[str]) -> str:
    """Return a key: mostly a known one, else misspelt, of PySlowFast, or nonsense."""
    kind = rng.random()
    if kind < 0.8:
        return pick(rng, known)
    if kind < 0.9:
        name = pick(rng, known)
        place = int(rng.integers(len(name)))
        return name[:place] + pick(rng, ("", "x", ".", " ", "é")) + name[place + 1 :]
    return pick(rng, FOREIGN_KEYS if kind < 0.96 else KEYS)


def overrides(rng: Rng, known: Mapping[str, Any]) -> list[str]:
    """Return `KEY VALUE` words, sometimes one too many; no NUL, which a command line cannot hold.

    `known`: the default of each key.
    """
    names = [key(rng, list(known)) for _ in range(int(rng.integers(1, 4)))]
    words = [w for name in names for w in (name, value(rng, known.get(name, "")))]
    words += [word(rng)] * (rng.random() < 0.05)
    return [w.replace("\0", "") for w in words]


def yaml_text(rng: Rng, text: str, known: Mapping[str, Any]) -> bytes:
    """Return the bytes of a config file with one to three changes."""
    for _ in range(int(rng.integers(1, 4))):
        text = pick(rng, _YAML_CHANGES)(rng, text, known)
    coding = "latin-1" if rng.random() < 0.03 else "utf-8"
    content = text.encode(coding, "surrogatepass" if coding == "utf-8" else "replace")
    return damaged(rng, content) if rng.random() < 0.1 else content


def _other_value(rng: Rng, text: str, known: Mapping[str, Any]) -> str:
    lines = text.split("\n")
    places = [n for n, line in enumerate(lines) if re.match(r"\s*[A-Z_0-9]+: \S", line)]
    if places:
        place = pick(rng, places)
        name, _, old = lines[place].partition(": ")
        like = next((v for k, v in known.items() if k.endswith(f".{name.strip()}")), old)
        lines[place] = f"{name}: {value(rng, like)}"
    return "\n".join(lines)


def _more_lines(rng: Rng, text: str, known: Mapping[str, Any]) -> str:
    lines = text.split("\n")
    full = key(rng, list(known))
    section, _, name = full.rpartition(".")
    new = f"{name}: {value(rng, known.get(full, ''))}"
    new = f"{section}:\n  {new}" if section else new
    lines.insert(int(rng.integers(len(lines) + 1)), new)
    return "\n".join(lines)


def _line_twice(rng: Rng, text: str, known: Mapping[str, Any]) -> str:
    lines = text.split("\n")
    lines.insert(int(rng.integers(len(lines))), pick(rng, lines))
    return "\n".join(lines)


def _indented(rng: Rng, text: str, known: Mapping[str, Any]) -> str:
    lines = text.split("\n")
    place = int(rng.integers(len(lines)))
    lines[place] = pick(rng, (" ", "  ", "\t", "- ")) + lines[place]
    return "\n".join(lines)


def _aliases(rng: Rng, text: str, known: Mapping[str, Any]) -> str:
    """Add nested lists of aliases, which expand to ten to the power of their depth values."""
    rows = ["l0: &l0 [1,1,1,1,1,1,1,1,1,1]"]
    for n in range(1, int(rng.integers(2, 12))):
        rows.append(f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 10)}]")
    return text + "\n" + "\n".join(rows) + "\n"


def _base(rng: Rng, text: str, known: Mapping[str, Any]) -> str:
    return f"_BASE_: {word(rng)}\n" + text


_YAML_CHANGES = (
    *(_other_value,) * 4,
    *(_more_lines,) * 3,
    _line_twice,
    _indented,
    _aliases,
    _base,
)


def damaged(rng: Rng, content: bytes) -> bytes:
    """Return `content` with a few bytes changed, removed or inserted."""
    data = bytearray(content)
    kind = int(rng.integers(4))
    if kind == 0 and data:
        for place in rng.integers(len(data), size=int(50 ** rng.random())):
            data[place] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del data[int(rng.integers(len(data) + 1)) :]
    elif kind == 2:
        place = int(rng.integers(len(data) + 1))
        data[place:place] = rng.bytes(int(300 ** rng.random()))
    else:
        place = int(rng.integers(len(data) + 1))
        del data[place : place + int(300 ** rng.random())]
    return bytes(data)


def _tensors(rng: Rng, like: Any) -> list[Any]:
    is_small = isinstance(like, torch.Tensor) and like.numel() < 10**7
    shape = tuple(like.shape) if is_small else (2,)
    floats = torch.ones(shape)
    return [
        floats.to(torch.int8),
        floats.to(torch.bool),
        floats.to(torch.complex64),
        floats.to(torch.float64),
        floats.to(torch.bfloat16),
        floats * float("nan"),
        floats * float("inf"),
        torch.empty(shape, device="meta"),
        floats.to_sparse(),
        torch.quantize_per_tensor(floats, 0.1, 0, torch.qint8),
        torch.ones((*shape, 1)),
        torch.ones(()),
        torch.ones(0),
        torch.zeros(1).expand(10**12),
        floats[..., :0],
        torch.nn.Parameter(floats),
    ]


def _values(rng: Rng, like: Any) -> list[Any]:
    plain = [None, [], {}, (), "x", b"x", 0, -1, 10**30, 1e400, float("nan"), True, {"a": {1: 2}}]
    return [*plain, *STRANGE[:3], [[[]]], {1: 2}, {None: None}, range(3), 10**9, 2**63, -(2**63)]


def changed(rng: Rng, content: Any, *, whole: float = 0.1) -> Any:
    """Return a checkpoint's content with a wrong value, key or wrapping.

    The change is at a random place in the nested dicts, at the top with a probability of `whole`.
    Dicts on the path to it are copies.
    """
    if rng.random() < whole / 2:
        wrapping = pick(rng, ("state_dict", "model", "module", "ema", "weights", 0))
        return pick(rng, (lambda: {wrapping: content}, lambda: [content], lambda: (content, 1)))()
    if not isinstance(content, dict) or not content or rng.random() < whole:
        return pick(rng, _tensors(rng, content) + _values(rng, content))
    content, name = dict(content), pick(rng, list(content))
    kind = rng.random()
    if kind < 0.1:
        del content[name]
    elif kind < 0.2:
        content[pick(rng, (f"module.{name}", f"{name}x", 3, None, ("a",), "\x1b[31m"))] = (
            content.pop(name)
        )
    elif isinstance(content[name], torch.Tensor) and kind < 0.8:
        content[name] = pick(rng, _tensors(rng, content[name]))
    elif isinstance(content[name], str) and len(content[name]) > 100:
        text = yaml_text(rng, content[name], {"DATA.MEAN": (0.45,) * 3, "MODEL.ARCH": "hiera"})
        content[name] = text.decode("utf-8", "replace")
    else:
        content[name] = changed(rng, content[name])
    return content


class _Calls:
    """An object that pickle loads by calling a harmless function that no checkpoint needs."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("written-by-a-pickle"),)


def checkpoint_file(rng: Rng, content: Any) -> bytes:
    """Return the bytes of a checkpoint: changed content, damaged bytes, or another file."""
    kind = rng.random()
    if kind < 0.7:
        for _ in range(int(rng.integers(1, 3))):
            content = changed(rng, content, whole=0.03)
    elif kind < 0.73:
        content = {"model_state": _Calls()}
    out = io.BytesIO()
    try:
        torch.save(content, out)
    except (RuntimeError, NotImplementedError, OverflowError):
        out = io.BytesIO()
        torch.save({"model_state": None}, out)  # torch.save cannot write the changed content
    whole = out.getvalue()
    if kind < 0.73:
        return whole
    if kind < 0.78:
        return deflated(whole)
    if kind < 0.82:
        return pick(rng, (b"", b"{}", b"\x80\x04N.", b"PK\x05\x06" + bytes(18), b"[" * 100_000))
    return damaged(rng, whole)


def deflated(content: bytes) -> bytes:
    """Compress the members of a zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def json_file(rng: Rng, content: Any) -> bytes:
    """Return the bytes of a JSON file with one or two values, keys or bytes changed."""
    for _ in range(int(rng.integers(1, 3))):
        content = _changed_json(rng, content, whole=0.02)
    if rng.random() < 0.05:
        return b"[" * 100_000 + b"]" * 100_000
    data = json.dumps(content).encode("utf-8", "surrogatepass")
    return damaged(rng, data) if rng.random() < 0.15 else data


def _changed_json(rng: Rng, content: Any, *, whole: float = 0.1) -> Any:
    """Change a random part of the value; the whole value with a probability of `whole`."""
    odd = [None, True, [], {}, "", "x", -1, 2**63, 2**64, 10**30, 0.5, 1e308, float("nan")]
    odd += [pick(rng, STRANGE), word(rng), [1], ["x"], {"a": 1}, [[]], "a::b", "http://127.0.0.1:9"]
    if rng.random() < whole or not isinstance(content, dict | list) or not content:
        return pick(rng, odd)
    if isinstance(content, list):
        content, place = list(content), int(rng.integers(len(content)))
        content[place] = _changed_json(rng, content[place])
        return content
    content, name = dict(content), pick(rng, list(content))
    if rng.random() < 0.15:
        del content[name]
    else:
        content[name] = _changed_json(rng, content[name])
    return content


_PATHS = (  # noqa: SIM905
    "missing.mp4 /etc/passwd /dev/zero /dev/stdin /proc/self/mem . .. / ~ file:x pipe:0 12:30.mp4 "
    "concat:a|b http://127.0.0.1:9/x.mp4 http://[ https:// s3://a/b.mp4 data:,x %03d.png -i "
    "a::b@0+1 a::b@99999999999999999999+1 rtmp://127.0.0.1:9/x"
).split(" ")


def list_file(rng: Rng, lines: Sequence[str]) -> bytes:
    """Return the bytes of a list of videos and labels with a few unusual lines."""
    lines = list(lines)
    for _ in range(int(rng.integers(1, 3))):
        path, _, label = pick(rng, lines).rpartition(" ")
        new = (
            *(f"{pick(rng, _PATHS)} {label}",) * 16,
            f"{path} {word(rng)}",
            f"{path}{pick(rng, (' ', ',', ';', chr(9), '  ', '|'))}{label}",
            f'"{path}","{label}"',
            f'"{path},{label}',
            f"{path} {label} {label}",
            f"{path} {label},{label}",
            f"{path}",
            f"{word(rng)} {label}",
            word(rng),
            "label,youtube_id,time_start,time_end,split",
            "path label",
            "#" + path,
            f"{path} {label}\r",
            f"{path} -1",
            f"{path} 99999999999999999999",
        )
        lines.insert(int(rng.integers(len(lines) + 1)), pick(rng, new))
    text = "\n".join(lines) + "\n"
    coding = pick(rng, ("utf-8",) * 8 + ("utf-8-sig", "utf-16", "latin-1"))
    content = text.encode(coding, "surrogatepass" if coding.startswith("utf") else "replace")
    return damaged(rng, content) if rng.random() < 0.15 else content
