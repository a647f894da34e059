"""Extract features of videos with a trained model, one file for each; skip those already there.

Shape suffixes: B views of some videos, V views of one, N tokens, D channels, CTHW a clip; in a
feature map THW are the tokens of its stage, in spatial order.
"""

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO, StringIO
from typing import Any

import numpy as np
import simplejson
import torch
from safetensors.numpy import save
from torch import nn

from hiera_video.config import Config
from hiera_video.data.dataset import Failure
from hiera_video.inference.load import Trained
from hiera_video.inference.videos import read_videos
from hiera_video.models.hiera import Hiera
from hiera_video.models.parts.encoder import HieraEncoder
from hiera_video.models.parts.scores import autocast
from hiera_video.utils import disk, io
from hiera_video.utils.errors import UserError
from hiera_video.utils.read_json import parse_json

SETTINGS_FILE = "features.json"
ENDINGS = {"npz": ".npz", "safetensors": ".safetensors"}
_UNFINISHED = re.compile(r"\..*\.(npz|safetensors)\..*\.tmp")


@dataclass(frozen=True, slots=True)
class FeatureKind:
    """Which features of a video are kept, and in what form.

    Args:
        per: "clip" keeps all views, `[clips, crops, ...]`; "video" keeps the mean over the views
            or, for feature maps, joins the clips in time.
        features: "pooled", `[D]`, or "map", `[T, H, W, D]`.
        stage: stage of the model, 1 to 4; a classifier uses the last one.
        dtype: "float32" or "float16".
        form: "npz" or "safetensors".
    """

    per: str
    features: str
    stage: int
    dtype: str
    form: str


def check_kind(kind: FeatureKind, trained: Trained) -> None:
    """Raise a UserError if a model or its views cannot give features of this kind."""
    model = trained.model
    if not isinstance(model, HieraEncoder):
        raise UserError(
            f"checkpoint must be one of a Hiera, got {trained.cfg.MODEL.MODEL_NAME}, whose "
            "features are not known here."
        )
    num_stages = model.plans[-1].stage + 1
    if not 1 <= kind.stage <= num_stages:
        raise UserError(
            f"--stage must be between 1 and {num_stages}, got {kind.stage}. Try {num_stages}."
        )
    crops = trained.cfg.TEST.NUM_SPATIAL_CROPS
    if kind.per == "video" and kind.features == "map" and crops > 1:
        raise UserError(
            f"--crops must be 1 for feature maps per video, got {crops}: crops overlap, and cannot "
            "lie beside each other in one map. Try --crops 1, or --per clip."
        )


def last_stage(model: nn.Module) -> int:
    """Return the number of a model's last stage, counted from 1."""
    return model.plans[-1].stage + 1 if isinstance(model, HieraEncoder) else 1


@torch.inference_mode()
def features_of(model: nn.Module, clips_BCTHW: torch.Tensor, kind: FeatureKind) -> torch.Tensor:
    """Return float32 features of normalised clips: `[B, D]`, or maps `[B, T, H, W, D]`.

    Pooled is the mean over the tokens. In a classifier's last stage it is also normalised, as the
    last layer expects it.
    """
    assert isinstance(model, HieraEncoder)
    maps_BTHWD = model.forward_features(clips_BCTHW)[kind.stage - 1]
    if kind.features == "map":
        return maps_BTHWD.float()
    tokens_BND = maps_BTHWD.flatten(1, -2)
    if not isinstance(model, Hiera) or kind.stage != last_stage(model):
        return tokens_BND.mean(1).float()
    # A class token is no feature of the map, so the mean takes its place.
    pooled_BD = model.norm(tokens_BND.mean(1)) if model.num_extra else model.pool(tokens_BND)
    return pooled_BD.float()


def extract(
    trained: Trained, paths: Sequence[str], kind: FeatureKind
) -> Iterator[tuple[str, np.ndarray | Failure]]:
    """Yield, for each video in order, its features, or why it did not decode.

    Raises:
        UserError: the features are not finite.
    """
    cfg, device = trained.cfg, trained.device
    for batch, places in read_videos(cfg, paths, device=device):
        parts = []
        for part in batch.split(cfg.TEST.BATCH_SIZE):
            with autocast(device, enabled=cfg.TRAIN.MIXED_PRECISION):
                clips_BCTHW = part.to(device).clips_BCTHW
                parts.append(features_of(trained.model, clips_BCTHW, kind).cpu().numpy())
        for path, place in places:
            if isinstance(place, Failure):
                yield path, place
            else:
                yield path, _of_video(np.concatenate(parts), place, cfg, kind)


def _of_video(features_B: np.ndarray, place: int, cfg: Config, kind: FeatureKind) -> np.ndarray:
    """Return the features of the video at index `place` of a batch."""
    num_clips, num_crops = cfg.TEST.NUM_TEMPORAL_CLIPS, cfg.TEST.NUM_SPATIAL_CROPS
    num_views = num_clips * num_crops
    features_V = features_B[place * num_views : (place + 1) * num_views]
    if not np.isfinite(features_V).all():
        raise UserError(
            "the model's features are not finite: its weights are broken. Try an older checkpoint."
        )
    if kind.per == "clip":
        features = features_V.reshape(num_clips, num_crops, *features_V.shape[1:])
    elif kind.features == "map":
        features = features_V.reshape(-1, *features_V.shape[2:])
    else:
        features = features_V.mean(0)
    return np.ascontiguousarray(features.astype(kind.dtype))


def feature_file(output: str, video: str, *, root: str, kind: FeatureKind) -> str:
    """Return the path of a video's features: relative to `output` as the video to `root`.

    A video outside `root` is named by its file name and a hash of its path.
    """
    path = os.path.abspath(video) if "://" not in video else video
    root = os.path.abspath(root)
    if path.startswith(os.path.join(root, "")):
        name = os.path.relpath(path, root)
    else:
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()
        name = os.path.join("elsewhere", digest[:2], f"{os.path.basename(path)}-{digest[:16]}")
    return os.path.join(output, name + ENDINGS[kind.form])


def is_done(file: str, video: str) -> bool:
    """Say whether a video's features exist and are newer than the video."""
    try:
        made = os.stat(file).st_mtime_ns
    except OSError:
        return False
    try:
        return made >= os.stat(video.rpartition("::")[0] or video).st_mtime_ns
    except OSError:  # a URL, or a video that was removed: its features stay valid
        return True


def write_features(file: str, video: str, features: np.ndarray, kind: FeatureKind) -> None:
    """Write features atomically: an array "features", and the video's "path".

    Raises:
        UserError: the file cannot be written.
    """
    if kind.form == "npz":
        buffer = BytesIO()
        np.savez(buffer, features=features, path=np.array(video))
        content = buffer.getvalue()
    else:
        text = os.fsencode(video).decode(errors="replace")  # the name may not be valid text
        content = save({"features": features}, metadata={"path": text})
    write_whole(file, content)


def write_whole(file: str, content: bytes) -> None:
    """Write a file of the features' folder atomically.

    Raises:
        UserError: it cannot be written.
    """
    try:
        io.make_dirs(os.path.dirname(file))
        disk.write_atomic(file, lambda out: out.write(content))
    except OSError as error:
        raise UserError(
            f"--output: {file!r} could not be written ({error.strerror or error}). What is written "
            "is whole; the same command goes on from there."
        ) from None


def write_csv(path: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table atomically."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    # A name that is not valid UTF-8 keeps the bytes that it has on the disk.
    write_whole(path, text.getvalue().encode(errors="surrogateescape"))


def remove_unfinished(output: str) -> None:
    """Remove the unfinished files of a run that was killed; no other run may be writing."""
    for folder, _, names in os.walk(output):
        for name in names:
            if _UNFINISHED.fullmatch(name):
                with suppress(OSError):  # gone already, or not ours to remove
                    os.unlink(os.path.join(folder, name))


def settle(output: str, trained: Trained, kind: FeatureKind, *, root: str) -> None:
    """Write the settings of the features in a folder, or check them against those already there.

    `root` is that of `feature_file`: relative to another root, other videos have the same names.

    Raises:
        UserError: the features there have other weights, views, kind or root.
    """
    path = os.path.join(output, SETTINGS_FILE)
    ours = {"root": os.path.abspath(root), **_settings(trained, kind)}
    if io.is_file(path):
        try:
            with io.open_file(path) as file:
                theirs = parse_json(file.read())
        except (OSError, ValueError):
            theirs = None
        if not isinstance(theirs, dict):
            raise UserError(
                f"--output must be a folder of features, got {output!r}, whose {SETTINGS_FILE} is "
                "damaged. Try another --output."
            )
        theirs.setdefault("precision", ours["precision"])  # earlier releases did not record it
        differ = [name for name in ours if theirs.get(name) != ours[name]]
        if differ:
            name = differ[0]
            raise UserError(
                f"--output must be a folder of features like these, got {output!r}, whose {name} "
                f"is {theirs.get(name)!r} and not {ours[name]!r}. Try another --output."
            )
        return
    write_whole(path, f"{simplejson.dumps(ours, indent=2)}\n".encode())


def _settings(trained: Trained, kind: FeatureKind) -> dict[str, Any]:
    cfg = trained.cfg
    data = {
        name: getattr(cfg.DATA, name)
        for name in ("NUM_FRAMES", "SAMPLING_RATE", "TARGET_FPS", "SAMPLING", "TEST_CROP_SIZE")
    }
    return {
        **asdict(kind),
        "clips": cfg.TEST.NUM_TEMPORAL_CLIPS,
        "crops": cfg.TEST.NUM_SPATIAL_CROPS,
        **data,
        "MEAN": list(cfg.DATA.MEAN),
        "STD": list(cfg.DATA.STD),
        "precision": "bfloat16" if cfg.TRAIN.MIXED_PRECISION else "float32",
        "model": cfg.MODEL.MODEL_NAME,
        "weights": weights_hash(trained.model),
    }


def weights_hash(model: nn.Module) -> str:
    """Return a hash of all weights, which does not depend on where they were read from."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.cpu().float().numpy()).tobytes())
    return digest.hexdigest()
