"""Export a checkpoint to torch.export, to ONNX, or to a folder for `from_pretrained`."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hiera_video.checkpoints.hub import CONFIG, FACTS, WEIGHTS, write_bytes
from hiera_video.checkpoints.run_folder import RESULTS_FILE
from hiera_video.config import Config
from hiera_video.export.card import CARD_MARK, CardFacts, write_card
from hiera_video.export.graph import FILES, TOLERANCE, export_graphs
from hiera_video.flops.count import count
from hiera_video.flops.report import report_config
from hiera_video.inference.load import Trained, load_trained
from hiera_video.models.origin import Origin, origin_of
from hiera_video.models.parts.hub_model import HubModel
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.outputs import make_folder
from hiera_video.utils.read_json import parse_json
from hiera_video.version import __version__

FORMATS = (*FILES, "safetensors")
CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Export:
    """What to export, and where to.

    `checkpoint` and `model_name` are as for `load_trained`. `results` is a test_results.json,
    `class_names` a file or list of names, and `data_name` the name of the data set on the card.
    If one of these is empty, the run's own files decide.
    """

    checkpoint: str
    output: str
    formats: Sequence[str] = ("safetensors",)
    model_name: str = ""
    cfg: Config | None = None
    class_names: str = ""
    results: str = ""
    data_name: str = ""
    tolerance: float = TOLERANCE


def export_model(wanted: Export, tell: Callable[[str], None] = print) -> None:
    """Write the wanted formats to a folder; call `tell` with a line on each written format.

    Raises:
        UserError: the checkpoint cannot be loaded, the model cannot be exported to a format, or an
            exported graph differs from the model by more than the tolerance.
    """
    is_run = not wanted.model_name
    trained = load_trained(
        wanted.checkpoint or None,
        model=wanted.model_name or None,
        cfg=wanted.cfg,
        class_names=wanted.class_names or None,
        device="cpu",
        classifier=False,
    )
    _refuse_impossible(wanted.formats, trained)
    make_folder(wanted.output, key="--output")
    if "safetensors" in wanted.formats:
        _refuse_foreign_card(wanted.output)
    results = _results(wanted, trained)
    origin = _origin(wanted, trained)
    facts = _facts(wanted, trained, origin)
    _warn_of_older(wanted, tell)
    graphs = [name for name in wanted.formats if name in FILES]
    files: list[str] = []
    shape = _clip_shape(trained.cfg)
    if graphs:
        for done in export_graphs(
            trained.model,
            wanted.output,
            graphs,
            clip_shape=shape,
            facts=facts,
            tolerance=wanted.tolerance,
        ):
            tell(str(done))
            gap = max(done.differences.values())
            name = os.path.basename(done.path)
            files.append(f"`{name}`: clips to logits, within {gap:.1e} of the original model")
    if "safetensors" not in wanted.formats:
        return
    model: Any = trained.model
    model.save_pretrained(wanted.output, facts=facts)
    files.append(f"`{CONFIG}`, `{WEIGHTS}`, `{FACTS}`: for `from_pretrained`")
    card = CardFacts(
        model_name=facts["model_name"],
        class_name=type(model).__name__,
        clip_shape=shape,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=_multiply_adds(trained),
        origin=origin,
        checkpoint=wanted.checkpoint or wanted.model_name,
        cfg=trained.cfg if is_run or wanted.cfg else None,
        class_names=trained.class_names,
        data_name=wanted.data_name
        or os.path.basename(trained.cfg.DATA.PATH_TO_DATA_DIR.rstrip("/")),
        results=results,
        files=files,
    )
    path = os.path.join(wanted.output, CARD)
    try:
        write_bytes(path, write_card(card).encode())
    except OSError as error:
        raise UserError(f"--output: {path!r} could not be written ({error.strerror}).") from None
    size = os.path.getsize(os.path.join(wanted.output, WEIGHTS))
    tell(
        f"safetensors: {wanted.output} ({size / 1e6:.1f} MB in {WEIGHTS}; {CONFIG}, {FACTS}, "
        f"{CARD}); from_pretrained({wanted.output!r}) loads it"
    )


def _refuse_impossible(formats: Sequence[str], trained: Trained) -> None:
    if trained.cfg.TASK == "ssl" and (graphs := [name for name in formats if name in FILES]):
        raise UserError(
            f"--format must be safetensors for an autoencoder, whose masks are another input, got "
            f"{' '.join(graphs)}. Try the checkpoint of a fine-tuning run."
        )
    if "safetensors" in formats and not isinstance(trained.model, HubModel):
        raise UserError(
            f"--format safetensors must have a Hiera, got {trained.cfg.MODEL.MODEL_NAME}. Try "
            "tools/export_checkpoint.py, which writes the plain weights of any model."
        )


def _warn_of_older(wanted: Export, tell: Callable[[str], None]) -> None:
    """Warn of files that an earlier export left in the folder: they may be of another model."""
    written = {**FILES, "safetensors": WEIGHTS}
    for name, file in written.items():
        if name not in wanted.formats and os.path.exists(os.path.join(wanted.output, file)):
            tell(
                f"warning: {file} in {wanted.output} comes from an earlier export and is kept: if "
                f"it is of another checkpoint, remove it or add {name} to --format"
            )


def _refuse_foreign_card(folder: str) -> None:
    """Raise a UserError if the card would overwrite a README that is not a card."""
    path = os.path.join(folder, CARD)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            is_card = CARD_MARK in file.read()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(
            f"--output: {path!r} cannot be read ({error.strerror}). Try a new folder."
        ) from None
    if not is_card:
        raise UserError(
            f"--output must be a folder for the model alone, got {folder!r}, whose {CARD} is not "
            "one that this tool wrote. Try a new folder."
        )


def _clip_shape(cfg: Config) -> tuple[int, ...]:
    return (3, cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE)


def _origin(wanted: Export, trained: Trained) -> Origin:
    checkpoint = wanted.checkpoint
    if wanted.model_name and not checkpoint:  # the model's published weights
        return Origin("published", wanted.model_name)
    is_run = not wanted.model_name or wanted.cfg is not None
    return origin_of(checkpoint, trained.cfg.TRAIN.CHECKPOINT_FILE_PATH if is_run else None)


def _facts(wanted: Export, trained: Trained, origin: Origin) -> dict[str, Any]:
    data = trained.cfg.DATA
    clips: dict[str, Any] = {"shape": list(_clip_shape(trained.cfg))}
    if origin.kind == "published" or wanted.cfg or not wanted.model_name:  # else unknown
        clips |= {
            "sampling": data.SAMPLING,
            "sampling_rate": data.SAMPLING_RATE,
            "target_fps": data.TARGET_FPS,
            "mean": list(data.MEAN),
            "std": list(data.STD),
            "num_clips": trained.cfg.TEST.NUM_TEMPORAL_CLIPS,
            "num_crops": trained.cfg.TEST.NUM_SPATIAL_CROPS,
        }
    return {
        "model_name": trained.cfg.MODEL.MODEL_NAME,
        "class_names": list(trained.class_names),
        "clips": clips,
        "outputs": "logits" if trained.cfg.TASK == "classify" else "reconstruction",
        "checkpoint": os.path.basename(wanted.checkpoint) or wanted.model_name,
        "licence": origin.licence,
        # Without origin.weights, a path on the machine that trained.
        "origin": {"kind": origin.kind, "start": origin.start},
        "hiera_video": __version__,
        "torch": torch.__version__,
    }


def _multiply_adds(trained: Trained) -> int | None:
    model: Any = trained.model
    if trained.cfg.TASK == "ssl":  # with the masks of its config
        return report_config(trained.cfg, "").cost.multiply_adds
    with torch.device("meta"):
        shadow = type(model)(**model.settings)
        clips_BX = torch.empty(1, *_clip_shape(trained.cfg))
    return count(shadow, clips_BX).multiply_adds


def _results(wanted: Export, trained: Trained) -> Mapping[str, Any] | None:
    """Return the test's figures from `wanted.results`, or from the run's folder by default.

    Raises:
        UserError: the named file holds no results, or those of another checkpoint.
    """
    path = wanted.results
    if not path:
        if not io.exists(wanted.checkpoint):  # a name or URL, not a file of a local run
            return None
        checkpoint = os.path.abspath(wanted.checkpoint)
        path = os.path.join(os.path.dirname(os.path.dirname(checkpoint)), RESULTS_FILE)
        found = _read_results(path) if io.is_file(path) else None
        return found if found and _tested_name(found) == os.path.basename(checkpoint) else None
    found = _read_results(path)
    if found is None:
        raise UserError(
            f"--results must be a {RESULTS_FILE} that a test has written, got {path!r}. Try the "
            "one in the run's OUTPUT_DIR."
        )
    is_file = io.is_file(wanted.checkpoint)
    if is_file and _tested_name(found) != os.path.basename(wanted.checkpoint):
        raise UserError(
            f"--results must be of the checkpoint that is exported, {wanted.checkpoint!r}, got "
            f"those of {found.get('checkpoint')!r}. Try the results of a test of this checkpoint."
        )
    return found


def _read_results(path: str) -> dict[str, Any] | None:
    try:
        with io.open_file(path) as file:
            found = parse_json(file.read())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "top1_acc" in found else None


def _tested_name(results: Mapping[str, Any]) -> str:
    return os.path.basename(str(results.get("checkpoint")).rstrip("/"))
