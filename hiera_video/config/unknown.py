"""What to say of a key that is not there: PySlowFast's name for another, or a misspelling."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hiera_video.config.schema import key_specs, sections

# PySlowFast's name -> ours, where the value means the same or nearly so.
RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "TEST.NUM_ENSEMBLE_VIEWS": "TEST.NUM_TEMPORAL_CLIPS",
        "TEST.SAVE_RESULTS_PATH": "TEST.SCORES_FILE",
        "MIXUP.LABEL_SMOOTH_VALUE": "SOLVER.LABEL_SMOOTHING",
        "MODEL.DROPCONNECT_RATE": "MODEL.DROP_PATH_RATE",
        "MVIT.DROPPATH_RATE": "MODEL.DROP_PATH_RATE",
        "MVIT.DROPOUT_RATE": "MODEL.DROPOUT_RATE",
        "AUG.MASK_RATIO": "MASK.RATIO",
    }
)

# PySlowFast's name -> what there is here instead.
REPLACED: Mapping[str, str] = MappingProxyType(
    {
        "DATA.TRAIN_JITTER_SCALES": "here crops are drawn by share of the area: "
        "DATA.TRAIN_JITTER_SCALES_RELATIVE [0.08, 1.0]",
        "DATA.USE_OFFSET_SAMPLING": "here it is DATA.SAMPLING uniform",
        "DATA.PATH_LABEL_SEPARATOR": "here space, comma and tab are all understood",
        "DATA.INPUT_CHANNEL_NUM": "here a clip always has three channels",
        "DATA.REVERSE_INPUT_CHANNEL": "here frames are always RGB",
        "DATA.ENSEMBLE_METHOD": "here the scores of the views are always averaged",
        "DATA.INV_UNIFORM_SAMPLE": "here crops are drawn by share of the area",
        "AUG.MASK_TUBE": "here it is MASK.STRATEGY tube",
        "AUG.MASK_FRAMES": "here it is MASK.STRATEGY frame",
        "AUG.GEN_MASK_LOADER": "here masks are drawn where the loss is computed",
        "MASK.ENABLE": "here it is TASK ssl",
        "MASK.MAE_ON": "here it is TASK ssl",
        "MASK.NORM_PRED_PIXEL": "here the pixels of each patch are always normalised",
        "AUG.INTERPOLATION": "here the transforms choose it",
        "AUG.RE_COUNT": "here one box is erased",
        "SOLVER.LR_POLICY": "here it is always warm-up and cosine",
        "SOLVER.BASE_LR_SCALE_NUM_SHARDS": "here BASE_LR is scaled by the batch: "
        "SOLVER.BASE_BATCH_SIZE",
        "SOLVER.ZERO_WD_1D_PARAM": "here vectors and positions are never decayed",
        "SOLVER.WARMUP_FACTOR": "here it is a learning rate: SOLVER.WARMUP_START_LR",
        "SOLVER.CLIP_GRAD_VAL": "here the norm is clipped: SOLVER.CLIP_GRAD_L2NORM",
        "MODEL.LOSS_FUNC": "here the loss follows from MIXUP and SOLVER.LABEL_SMOOTHING",
        "MODEL.HEAD_ACT": "here models give logits, and the metrics take the softmax",
        "NUM_SHARDS": "here torchrun says how many machines there are",
        "SHARD_ID": "here torchrun says which machine this is",
        "DIST_BACKEND": "here it follows from the device",
        "TRAIN.CHECKPOINT_TYPE": "here checkpoints are always PyTorch's",
        "TEST.CHECKPOINT_TYPE": "here checkpoints are always PyTorch's",
        "TRAIN.CHECKPOINT_EPOCH_RESET": "here CHECKPOINT_FILE_PATH always starts at epoch 0, and "
        "TRAIN.AUTO_RESUME goes on",
        "TENSORBOARD.LOG_DIR": "here it is inside OUTPUT_DIR",
    }
)

# PySlowFast's sections for what is not in this toolkit.
ABSENT_SECTIONS = (
    *("RESNET", "SLOWFAST", "NONLOCAL", "X3D", "MVIT", "BN", "DETECTION", "AVA"),
    *("MULTIGRID", "CONTRASTIVE", "BENCHMARK", "DEMO", "VIS_MASK"),
)


@dataclass(frozen=True)
class Unknown:
    """What to tell of an unknown key, and the keys of ours that may have been meant."""

    message: str
    meant: tuple[str, ...] = ()


def explain_unknown(name: str) -> Unknown:
    """Explain a dotted name that is no key: renamed, elsewhere, misspelt, or simply not there."""
    specs = key_specs()
    if name in RENAMED:
        new = RENAMED[name]
        return Unknown(f"{name} is PySlowFast's name; here it is {new}.", (new,))
    if name in REPLACED:
        return Unknown(f"{name} is a key of PySlowFast; {REPLACED[name]}. Try without it.")
    section, _, leaf = name.rpartition(".")
    if name in sections():
        first = next(spec for spec in specs if spec.startswith(f"{name}."))
        return Unknown(
            f"{name} must be a section of keys, got a value. Try {first}: with a space after the "
            "colon."
        )
    if section in specs:
        return Unknown(f"{section} must be a value, got keys under it.", (section,))
    top = name.split(".")[0]
    if top in ABSENT_SECTIONS:
        return Unknown(f"{top} is a section of PySlowFast that is not here. Try without it.")
    meant = _meant(name, section, leaf)
    if meant:
        return Unknown(f"{name} is not a key. Did you mean {' or '.join(meant)}?", meant)
    if "." in name and top not in sections():
        return Unknown(f"{top} is not a section. The sections are {', '.join(sections())}.")
    return Unknown(f"{name} is not a key. {_neighbours(section)}")


def _meant(name: str, section: str, leaf: str) -> tuple[str, ...]:
    """Return the likely keys: another case, a slip, another section, a part of the name."""
    by_folded = {spec.casefold(): spec for spec in key_specs()}
    name, section, leaf = name.casefold(), section.casefold(), leaf.casefold()
    if name in by_folded:
        return (by_folded[name],)
    here = [key for key in by_folded if key.rpartition(".")[0] == section]
    slip = difflib.get_close_matches(name, here, n=1, cutoff=0.85)
    elsewhere = [key for key in by_folded if key.rpartition(".")[2] == leaf]
    part = [key for key in here if len(leaf) > 2 and leaf in key.rpartition(".")[2]]
    near = difflib.get_close_matches(name, by_folded, n=1, cutoff=0.75)
    # A longer list is no advice: ENABLE is a key of most sections.
    found = next((keys for keys in (slip, elsewhere, part, near) if 0 < len(keys) <= 3), [])
    return tuple(by_folded[key] for key in found)


def _neighbours(section: str) -> str:
    prefix = f"{section}." if section else ""
    names = [spec for spec in key_specs() if spec.rpartition(".")[0] == section]
    if not section:
        names += list(sections())
    listing = ", ".join(name.removeprefix(prefix) for name in names)
    return f"{section or 'The top level'} has {listing}."
