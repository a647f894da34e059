"""Write the model card of exported weights.

The card states only known facts. It shows files and folders by their last name, without the paths
of the machine that trained.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from hiera_video.config import Config, diff_from_defaults
from hiera_video.models.origin import PUBLISHED_LICENCE, Origin
from hiera_video.utils.text import printable
from hiera_video.version import __version__

# Marks a card written here, or by huggingface_hub for a model of this package.
CARD_MARK = "library_name: hiera_video"
_MAX_CLASSES_SHOWN = 20
_PAPER = "https://arxiv.org/abs/2306.00989"
# Config keys of paths and of the machine, which say nothing about the model.
_PRIVATE = ("OUTPUT_DIR", "NUM_GPUS", "DATA_LOADER.", "TENSORBOARD.", "DIST.", "LOG_PERIOD")
_ORIGINS = {
    "published": (
        "These are weights published by the authors of Hiera ({start}), under "
        f"**{PUBLISHED_LICENCE}**: no commercial use."
    ),
    "derived": (
        "The weights were trained from the published ones of the authors of Hiera ({start}), "
        f"whose licence is **{PUBLISHED_LICENCE}**: no commercial use of those weights, nor of "
        "weights derived from them."
    ),
    "own": (
        "The run started from fresh weights, not from the authors' weights. No licence is stated "
        "yet: whoever trained the model chooses it (`license:` above)."
    ),
    "unknown": (
        "It is not known what the weights were trained from ({start}). If it was a file of the "
        f"authors of Hiera, its licence, **{PUBLISHED_LICENCE}** (no commercial use), applies to "
        "these weights too."
    ),
}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """The facts shown on a card.

    `cfg` is the run's config, None if the weights come without one. `results` is the content of
    test_results.json. `multiply_adds` are those of one view, None if not counted. `data_name` names
    the data set. `files` are lines that describe the files beside the card.
    """

    model_name: str
    class_name: str
    clip_shape: tuple[int, ...]
    num_parameters: int
    multiply_adds: int | None
    origin: Origin
    checkpoint: str
    cfg: Config | None
    class_names: Sequence[str]
    data_name: str
    results: Mapping[str, Any] | None
    files: Sequence[str]


def write_card(facts: CardFacts) -> str:
    """Return the card as Markdown with the hub's YAML header."""
    parts = [
        _header(facts),
        f"# {facts.model_name}",
        _summary(facts),
        _usage(facts),
        _accuracy(facts),
        _training(facts),
        _classes(facts.class_names),
        "## Files\n\n" + "\n".join(f"- {line}" for line in facts.files),
        "## Licence\n\n"
        + _ORIGINS[facts.origin.kind].format(start=f"`{_plain(facts.origin.start)}`")
        + " The code, hiera_video, is Apache-2.0.",
        f"Written by hiera_video {__version__} with torch {torch.__version__}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(facts: CardFacts) -> str:
    header: dict[str, Any] = {"library_name": "hiera_video", "tags": ["video", "hiera"]}
    if _is_classifier(facts):
        header["pipeline_tag"] = "video-classification"
    if facts.origin.licence:
        header = {"license": facts.origin.licence.lower(), **header}
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---"


def _is_classifier(facts: CardFacts) -> bool:
    return not facts.class_name.startswith("MaskedAutoencoder")


def _summary(facts: CardFacts) -> str:
    what = "classifies videos" if _is_classifier(facts) else "is a masked autoencoder of videos"
    rows = [
        ("checkpoint", f"`{_plain(os.path.basename(facts.checkpoint))}`"),
        ("parameters", f"{facts.num_parameters / 1e6:.2f} M"),
        ("clip", " x ".join(map(str, facts.clip_shape)) + " (colours, frames, height, width)"),
    ]
    if facts.multiply_adds is not None:
        rows.insert(2, ("GFLOPs (multiply-adds) of a view", f"{facts.multiply_adds / 1e9:.2f}"))
    if (cfg := facts.cfg) is not None:
        spaced = f"every {cfg.DATA.SAMPLING_RATE} at {cfg.DATA.TARGET_FPS:g} fps"
        mean, std = list(cfg.DATA.MEAN), list(cfg.DATA.STD)
        frames = spaced if cfg.DATA.SAMPLING == "dense" else "spread over the whole video"
        rows += [
            ("frames", frames),
            ("pixels", f"RGB from 0 to 1, minus {mean}, divided by {std}"),
        ]
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    return f"[Hiera]({_PAPER}) (Ryali et al., ICML 2023) that {what}.\n\n{table}"


def _usage(facts: CardFacts) -> str:
    if facts.class_name not in ("Hiera", "MaskedAutoencoderHiera"):
        return ""
    clips = ", ".join(map(str, (1, *facts.clip_shape)))
    call = "logits" if _is_classifier(facts) else "loss, pred, target, visible"
    return (
        "## Use\n\n```python\nimport torch\nfrom hiera_video import from_pretrained\n\n"
        'model = from_pretrained("this_folder")  # in evaluation mode\n'
        f"{call} = model(torch.randn({clips}))\n```"
    )


def _accuracy(facts: CardFacts) -> str:
    if not _is_classifier(facts):
        return ""
    if not (results := facts.results):
        return "## Accuracy\n\nNo test result came with the weights."
    names = {
        "top1_acc": "top-1, %",
        "top5_acc": "top-5, %",
        "mean_class_acc": "mean class accuracy, %",
        "views": "views (clips x crops)",
    }
    rows = [f"| {names[key]} | {_plain(results[key])} |" for key in names if key in results]
    count = f"{results.get('num_evaluated', '?')} of {results.get('num_videos', '?')}"
    rows.append(f"| videos evaluated | {_plain(count)} |")
    where = f", on the test videos of {_plain(facts.data_name)}" if facts.data_name else ""
    return "\n".join([f"## Accuracy\n\nMeasured{where}.\n", "| | |", "|---|---|", *rows])


def _training(facts: CardFacts) -> str:
    if (cfg := facts.cfg) is None or facts.origin.kind == "published":
        return ""
    differing = {
        key: _last_name(value)
        for key, value in diff_from_defaults(cfg).items()
        if not key.startswith(_PRIVATE)
    }
    data = f"Data set: {_plain(facts.data_name)}. " if facts.data_name else ""
    weights, unused = facts.origin.weights, facts.origin.unused(cfg.TRAIN.CHECKPOINT_FILE_PATH)
    start = _last_name(cfg.TRAIN.CHECKPOINT_FILE_PATH if weights is None else weights)
    begun = f"from `{_plain(start)}`" if start else "from scratch"
    begun += f" (not from `{_plain(_last_name(unused))}`, as stated below)" if unused else ""
    epochs = f"{cfg.SOLVER.MAX_EPOCH} epochs of {cfg.SOLVER.OPTIMIZING_METHOD}"
    text = yaml.safe_dump(differing, sort_keys=False, allow_unicode=True, width=90)
    return (
        f"## Training\n\n{data}Configured: {epochs}, {begun}. The config keys that differ from "
        f"hiera_video's defaults:\n\n```yaml\n{text}```"
    )


def _last_name(value: Any) -> Any:
    is_path = isinstance(value, str) and "/" in value and "\n" not in value
    return os.path.basename(value.rstrip("/")) if is_path else value


def _classes(names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(_plain(name) for name in names[:_MAX_CLASSES_SHOWN])
    more = len(names) - _MAX_CLASSES_SHOWN
    rest = f" and {more} more, in `hiera_video.json`" if more > 0 else ""
    return f"## Classes\n\n{len(names)} classes: {shown}{rest}."


def _plain(value: object) -> str:
    """Return `value` as one line of text, with the characters of Markdown and tables escaped."""
    text = printable(" ".join(str(value).split()))
    return "".join(f"&#{ord(sign)};" if sign in "|<>`[]*" else sign for sign in text)
