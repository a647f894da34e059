"""Recognise the weights of other programs by their names, and give them this project's names.

A layout is a row of LAYOUTS: the end of a name that only it has, and a function that renames a
state dict. Recognised today: ViT in transformers' VideoMAE, in the authors' VideoMAE, and in timm
and MAE.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch

from hiera_video.checkpoints.unwrap import state_dicts

State = dict[str, torch.Tensor]


class Layout(NamedTuple):
    """A way to name weights; the name that ends with `tell_tale` shows it, and its prefix."""

    name: str
    tell_tale: str
    rename: Callable[[State], State]


class Converted(NamedTuple):
    """A state dict with this project's names, and what was recognised."""

    state: State
    note: str


def convert(content: Mapping[str, Any], names: Collection[str]) -> Converted | None:
    """Return the weights in a checkpoint of another program, None if none is recognised.

    `names` are those of the model's state dict. A layout counts if more of its renamed weights than
    of the file's own are among them.
    """
    for _, state in state_dicts(content):
        known = _num_known(state, names)
        for layout in LAYOUTS:
            tale = next((n for n in state if n.endswith(layout.tell_tale)), None)
            if tale is None:
                continue
            prefix = tale.removesuffix(layout.tell_tale)
            renamed = layout.rename({n.removeprefix(prefix): v for n, v in state.items()})
            if _num_known(renamed, names) > known:
                unused = len([name for name in renamed if name not in names])
                note = f"weights in the layout of {layout.name} were renamed"
                return Converted(renamed, note + (f", {unused} of them unused" if unused else ""))
    return None


def _num_known(state: State, names: Collection[str]) -> int:
    """Count the weights with the model's names, also behind a wrapper's prefix."""
    parts = (name.split(".") for name in state)
    endings = {".".join(words[start:]) for words in parts for start in range(len(words))}
    return len(endings & set(names))


def _from_transformers(state: State) -> State:
    """Rename transformers' VideoMAE: three layers for query, key (without bias) and value."""
    renamed: State = {}
    for name, value in state.items():
        name = name.replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
        name = re.sub(r"^encoder\.layer\.(\d+)\.", r"blocks.\1.", name)
        for theirs, ours in (
            ("attention.attention.", "attn."),
            ("attention.output.dense", "attn.proj"),
            ("intermediate.dense", "mlp.fc1"),
            (".output.dense", ".mlp.fc2"),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
        ):
            name = name.replace(theirs, ours)
        if name.startswith("layernorm."):
            name = f"encoder_norm.{name.removeprefix('layernorm.')}"
        name = re.sub(r"^fc_norm\.", "norm.", name)
        renamed[re.sub(r"^classifier\.", "head.projection.", name)] = value
    for name in [name for name in renamed if name.endswith("attn.query.weight")]:
        block = name.removesuffix("query.weight")
        parts = [renamed.pop(f"{block}{part}.weight") for part in ("query", "key", "value")]
        renamed[f"{block}qkv.weight"] = torch.cat(parts)
        biases = [renamed.pop(f"{block}{part}.bias", None) for part in ("query", "key", "value")]
        for index, key in ((0, "q_bias"), (2, "v_bias")):
            biases[index] = renamed.pop(f"{block}{key}", biases[index])
        zero = torch.zeros_like(parts[0][:, 0])
        renamed[f"{block}qkv.bias"] = torch.cat([zero if b is None else b for b in biases])
    return _decoder_apart(renamed)


def _from_videomae(state: State) -> State:
    """Rename the authors' VideoMAE: the bias of queries and values are two vectors."""
    renamed = dict(state)
    for name in [name for name in state if name.endswith("attn.q_bias")]:
        block = name.removesuffix("q_bias")
        query, value = renamed.pop(name), renamed.pop(f"{block}v_bias")
        renamed[f"{block}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    if "encoder_to_decoder.weight" in renamed:  # the norm of all tokens, not of their mean
        for part in ("weight", "bias"):
            renamed[f"encoder_norm.{part}"] = renamed.pop(f"norm.{part}")
    return _decoder_apart(_head(renamed))


def _from_timm(state: State) -> State:
    """Rename timm's and MAE's ViT: the class token's position is added to it here."""
    renamed = _head(state)
    token, positions = renamed.pop("cls_token"), renamed.get("pos_embed")
    if positions is not None:
        token, renamed["pos_embed"] = token + positions[:, :1], positions[:, 1:]
    return _decoder_apart(renamed | {"class_token": token})


def _head(state: State) -> State:
    renamed = {
        re.sub(r"^head\.(?=weight|bias)", "head.projection.", n): v for n, v in state.items()
    }
    if "fc_norm.weight" in renamed:  # the norm after the mean
        for part in ("weight", "bias"):
            renamed[f"norm.{part}"] = renamed.pop(f"fc_norm.{part}")
    return renamed


def _decoder_apart(state: State) -> State:
    """Mark the decoder of a pretraining file, whose names may be ours by chance."""
    return {
        f"theirs.{name}" if re.match(r"decoder|mask_token|encoder_to_decoder", name) else name: v
        for name, v in state.items()
    }


LAYOUTS = (
    Layout(
        "transformers' VideoMAE",
        "embeddings.patch_embeddings.projection.weight",
        _from_transformers,
    ),
    Layout("the authors' VideoMAE", "blocks.0.attn.q_bias", _from_videomae),
    Layout("timm's and MAE's ViT", "cls_token", _from_timm),
)
