"""Export classifiers to files that run without this package: torch.export (.pt2) and ONNX.

Each file is written under a temporary name, loaded as a user would load it, and compared with the
original model. Only a file that agrees gets its final name.

Shape suffixes: B clips, K classes; X is the clip's own dimensions, `CTHW` or `CHW`.
"""

import importlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import nn

from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.layers import MAX_WINDOWS
from hiera_video.utils import io
from hiera_video.utils.errors import UserError, first_line
from hiera_video.utils.seed import rng_for

FILES: Mapping[str, str] = {"pt2": "model.pt2", "onnx": "model.onnx"}
# A batch of one compiles differently from larger ones. 3 differs from the exported _EXAMPLE_BATCH.
CHECKED_BATCHES = (1, 3)
TOLERANCE = 1e-4
_EXAMPLE_BATCH = 2
# Name of the entry that describes the model in an exported file.
FACTS_ENTRY = "hiera_video.json"
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# A protobuf file holds at most 2 GiB; larger weights go to a second file.
_ONNX_MAX_BYTES = 1_900_000_000
_OPSET = 20


@dataclass(frozen=True, slots=True)
class Checked:
    """A written file and the largest difference of its logits from the model's, by batch size.

    `largest_logit` is the model's largest logit, for comparison with the differences.
    """

    format: str
    path: str
    num_bytes: int
    differences: Mapping[int, float]
    largest_logit: float

    def __str__(self) -> str:
        by_batch = ", ".join(f"{gap:.1e} at batch {n}" for n, gap in self.differences.items())
        return (
            f"{self.format}: {self.path} ({self.num_bytes / 1e6:.1f} MB); largest difference from "
            f"the eager model {max(self.differences.values()):.1e} ({by_batch}; logits up to "
            f"{self.largest_logit:.2g})"
        )


def export_graphs(
    model: nn.Module,
    folder: str,
    formats: Sequence[str],
    *,
    clip_shape: Sequence[int],
    facts: Mapping[str, Any],
    tolerance: float = TOLERANCE,
) -> list[Checked]:
    """Export a classifier to `folder` in `formats` ("pt2", "onnx"), comparing each with the model.

    The batch size is dynamic; `clip_shape` (channels first) is fixed. `model` is in evaluation
    mode on the CPU. Each file holds `facts` as JSON under FACTS_ENTRY.

    Raises:
        UserError: a logit differs by more than `tolerance`, the model cannot be exported, packages
            are missing, or the folder cannot be written to. No file of that format is written then.
    """
    if "onnx" in formats:
        require_onnx()
    shape = (max(CHECKED_BATCHES), *clip_shape)
    clips_BX = torch.from_numpy(rng_for("export").standard_normal(shape, np.float32))
    with torch.no_grad():
        expected = {batch: model(clips_BX[:batch]) for batch in CHECKED_BATCHES}
    found = []
    try:
        io.make_dirs(folder)
        for name in formats:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".export_") as work:
                path = os.path.join(work, FILES[name])
                _write(name, model, path, clips_BX[:_EXAMPLE_BATCH], json.dumps(facts))
                run = _READERS[name](path)
                gaps = {b: _gap(run(clips_BX[:b]), logits) for b, logits in expected.items()}
                _refuse_different(name, gaps, tolerance)
                del run  # it may hold the file open
                num_bytes = _move_all(work, folder)
            largest = max(float(logits.abs().max()) for logits in expected.values())
            target = os.path.join(folder, FILES[name])
            found.append(Checked(name, target, num_bytes, gaps, largest))
    except OSError as error:
        raise UserError(
            f"--output must be a folder that can be written to, got {folder!r} "
            f"({error.strerror or error}). Try another one."
        ) from None
    return found


def require_onnx() -> None:
    """Raise a UserError if packages for ONNX are not installed, naming them."""
    missing = [name for name in _ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx must have {', '.join(_ONNX_PACKAGES)} installed, got no "
            f"{' and no '.join(missing)}. Try pip install -e '.[export]', or --format pt2."
        )


def _write(name: str, model: nn.Module, path: str, clips_BX: torch.Tensor, facts: str) -> None:
    try:
        with _quiet():
            _WRITERS[name](model, path, clips_BX, facts)
    except OSError:
        raise
    except Exception as error:  # the exporters raise errors of many kinds
        reason = first_line(error)
        raise UserError(
            f"--format must be one that the model can be exported to, got {name} ({reason}). Try "
            "--format safetensors."
        ) from None


def _shapes(model: nn.Module) -> Any:
    """Return the dynamic dimensions for torch.export: the batch only."""
    # With more windows, attention runs in several parts, which is another graph.
    limit = MAX_WINDOWS // model.num_units if isinstance(model, HieraEncoder) else None
    return ({0: torch.export.Dim("batch", min=1, max=limit)},)


def _write_pt2(model: nn.Module, path: str, clips_BX: torch.Tensor, facts: str) -> None:
    program = torch.export.export(model, (clips_BX,), dynamic_shapes=_shapes(model), strict=False)
    # Saved to memory first: on a full disk PyTorch's own writer kills the process.
    content = BytesIO()
    torch.export.save(program, content, extra_files={FACTS_ENTRY: facts})
    with open(path, "wb") as file:
        file.write(content.getbuffer())


def _write_onnx(model: nn.Module, path: str, clips_BX: torch.Tensor, facts: str) -> None:
    program = torch.onnx.export(
        model,
        (clips_BX,),
        dynamic_shapes=_shapes(model),
        dynamo=True,
        input_names=["clips"],
        output_names=["logits"],
        opset_version=_OPSET,
        verbose=False,
    )
    assert program is not None  # dynamo=True returns a program
    program.model.metadata_props[FACTS_ENTRY] = facts
    num_bytes = sum(p.numel() * p.element_size() for p in model.state_dict().values())
    program.save(path, external_data=num_bytes > _ONNX_MAX_BYTES)


def _read_onnx(path: str) -> Callable[[torch.Tensor], torch.Tensor]:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(clips_BX: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(["logits"], {"clips": clips_BX.numpy()})[0])

    return run


_Writer = Callable[[nn.Module, str, torch.Tensor, str], None]
_WRITERS: Mapping[str, _Writer] = {"pt2": _write_pt2, "onnx": _write_onnx}
_READERS: Mapping[str, Callable[[str], Callable[[torch.Tensor], torch.Tensor]]] = {
    "pt2": lambda path: torch.export.load(path).module(),
    "onnx": _read_onnx,
}


def _gap(logits_BK: torch.Tensor, expected_BK: torch.Tensor) -> float:
    if logits_BK.shape != expected_BK.shape:
        return float("inf")
    with torch.no_grad():
        return float((logits_BK.double() - expected_BK.double()).abs().max())


def _refuse_different(name: str, gaps: Mapping[int, float], tolerance: float) -> None:
    failing = [batch for batch, gap in gaps.items() if not gap <= tolerance]  # true for NaN, too
    if failing:
        raise UserError(
            f"--tolerance must be at least the largest difference from the eager model, got "
            f"{tolerance:g} for {gaps[failing[0]]:.3g} at batch {failing[0]} of {name}. The file "
            "was not kept."
        )


def _move_all(work: str, folder: str) -> int:
    """Move the files from `work` to `folder`, the graph last; return their size in bytes."""
    names = sorted(os.listdir(work), key=lambda name: name in FILES.values())
    num_bytes = sum(os.path.getsize(os.path.join(work, name)) for name in names)
    for name in names:
        os.replace(os.path.join(work, name), os.path.join(folder, name))
    return num_bytes


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' warnings about their own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
