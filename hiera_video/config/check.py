"""Find contradictions between keys whose values are each valid.

The models check what only they know (sizes that must divide), and the engine checks what depends
on the machine (CUDA, files). Each entry of `CONTRADICTIONS` names the keys that it reads. If one of
them is invalid, the entry is skipped, because that key may be the cause of the contradiction.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from hiera_video.config.derived import views_per_video
from hiera_video.config.describe import value_of
from hiera_video.config.rules import PACKAGE, value_text
from hiera_video.config.schema import Config
from hiera_video.config.schema_model import FAMILY_TAKES
from hiera_video.utils.lookup import module_names


@dataclass(frozen=True)
class Contradiction:
    """A rule over several keys; `find` returns the message for the user, or ""."""

    keys: tuple[str, ...]
    find: Callable[[Config], str]


def contradictions(cfg: Config, *, faulty: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return (first key, message) of every contradiction that reads none of the `faulty` keys."""
    found = [
        (rule.keys[0], rule.find(cfg))
        for rule in CONTRADICTIONS
        if not any(key in faulty for key in rule.keys)
    ]
    return [(key, message) for key, message in found if message]


def _equal_parts(cfg: Config) -> str:
    if not cfg.TRAIN.ENABLE or cfg.TRAIN.BATCH_SIZE % max(cfg.NUM_GPUS, 1) == 0:
        return ""
    part = -(-cfg.TRAIN.BATCH_SIZE // cfg.NUM_GPUS)
    return (
        f"TRAIN.BATCH_SIZE must be divisible by NUM_GPUS ({cfg.NUM_GPUS}), since each GPU gets an "
        f"equal part, got {cfg.TRAIN.BATCH_SIZE}. Try TRAIN.BATCH_SIZE {part * cfg.NUM_GPUS}."
    )


def _something_to_do(cfg: Config) -> str:
    if cfg.TRAIN.ENABLE or cfg.TEST.ENABLE:
        return ""
    return "TRAIN.ENABLE or TEST.ENABLE must be True, got False for both. Try TEST.ENABLE True."


def _no_test_of_pixels(cfg: Config) -> str:
    if cfg.TASK != "ssl" or not cfg.TEST.ENABLE:
        return ""
    return (
        "TEST.ENABLE must be False for TASK ssl, which learns no labels to test, got True. Try "
        "TEST.ENABLE False, and a fine-tuning config to test with."
    )


def _autoencoder_for_ssl(cfg: Config) -> str:
    """Autoencoders stand in files *_mae, and the classifier that starts from one beside it."""
    arch, name = cfg.MODEL.ARCH, cfg.MODEL.MODEL_NAME
    is_autoencoder = arch.endswith("_mae")
    if cfg.TASK == "ssl" and not is_autoencoder:
        families = module_names(str(PACKAGE / "models"), taking=FAMILY_TAKES)
        family = arch if f"{arch}_mae" in families else "hiera"
        size = name.removeprefix("mae_")
        size = size if size.startswith(f"{family}_") else "hiera_base_16x224"  # a baseline's name
        return (
            f"MODEL.ARCH must be '{family}_mae' for TASK ssl, got {arch!r}. Try MODEL.ARCH "
            f"{family}_mae MODEL.MODEL_NAME mae_{size}."
        )
    if cfg.TASK == "classify" and is_autoencoder:
        return (
            f"MODEL.ARCH must be a classifier's for TASK classify, got {arch!r}. Try TASK ssl, or "
            f"MODEL.ARCH {arch.removesuffix('_mae')} MODEL.MODEL_NAME {name.removeprefix('mae_')}."
        )
    return ""


def _no_mixing_of_pixels(cfg: Config) -> str:
    if cfg.TASK != "ssl" or not cfg.MIXUP.ENABLE:
        return ""
    return "MIXUP.ENABLE must be False for TASK ssl, got True. Try MIXUP.ENABLE False."


def _all_learn_in_ssl(cfg: Config) -> str:
    if cfg.TASK != "ssl" or not (cfg.MODEL.LINEAR_PROBE or cfg.MODEL.FREEZE_LAYERS):
        return ""
    return (
        "MODEL.FREEZE_LAYERS must be 0 and MODEL.LINEAR_PROBE False for TASK ssl, got "
        f"{cfg.MODEL.FREEZE_LAYERS} and {cfg.MODEL.LINEAR_PROBE}. Try MODEL.FREEZE_LAYERS 0 "
        "MODEL.LINEAR_PROBE False."
    )


def _no_labels_in_ssl(cfg: Config) -> str:
    dropout, smoothing = cfg.MODEL.DROPOUT_RATE, cfg.SOLVER.LABEL_SMOOTHING
    if cfg.TASK != "ssl" or not (dropout or smoothing):
        return ""
    return (
        "MODEL.DROPOUT_RATE and SOLVER.LABEL_SMOOTHING must be 0 for TASK ssl, which has neither "
        f"classifier nor labels, got {dropout} and {smoothing}. Try MODEL.DROPOUT_RATE 0 "
        "SOLVER.LABEL_SMOOTHING 0."
    )


def _heads_share_channels(cfg: Config) -> str:
    dim, heads = cfg.MASK.DECODER_EMBED_DIM, cfg.MASK.DECODER_NUM_HEADS
    if dim % heads == 0:
        return ""
    return (
        f"MASK.DECODER_EMBED_DIM must be divisible by MASK.DECODER_NUM_HEADS ({heads}), got {dim}. "
        f"Try MASK.DECODER_EMBED_DIM {max(dim // heads, 1) * heads}."
    )


def _plain_scores_file(cfg: Config) -> str:
    name = cfg.TEST.SCORES_FILE
    if "/" not in name and "\\" not in name:
        return ""
    plain = name.replace("\\", "/").rsplit("/", 1)[-1]
    return f"TEST.SCORES_FILE must be a file name, without a folder, got {name!r}. Try {plain}."


def _same_dataset(cfg: Config) -> str:
    if not (cfg.TRAIN.ENABLE and cfg.TEST.ENABLE) or cfg.TRAIN.DATASET == cfg.TEST.DATASET:
        return ""
    return (
        f"TEST.DATASET must be TRAIN.DATASET ({cfg.TRAIN.DATASET!r}) when one run trains and "
        f"tests, got {cfg.TEST.DATASET!r}. Try TEST.DATASET {cfg.TRAIN.DATASET}, or TEST.ENABLE "
        "False and a test of its own."
    )


def _one_crop_size(cfg: Config) -> str:
    sizes = cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE
    if not cfg.MODEL.ARCH.startswith("hiera") or sizes[0] == sizes[1]:
        return ""
    return (
        f"DATA.TEST_CROP_SIZE must be DATA.TRAIN_CROP_SIZE ({sizes[0]}), because Hiera learns "
        f"its positions for one size, got {sizes[1]}. Try DATA.TEST_CROP_SIZE {sizes[0]}."
    )


def _ordered(key: str, cfg: Config) -> str:
    pair: tuple[float, ...] = value_of(cfg, key)
    if pair[0] <= pair[1]:
        return ""
    ascending = value_text(sorted(pair))
    return f"{key} must be [smallest, largest], got {value_text(pair)}. Try {ascending}."


def _no_flip_for_left_and_right(cfg: Config) -> str:
    if cfg.TRAIN.DATASET != "ssv2" or not cfg.DATA.RANDOM_FLIP:
        return ""
    return (
        "DATA.RANDOM_FLIP must be False for ssv2, where 'from left to right' and 'from right to "
        "left' are different labels, got True. Try DATA.RANDOM_FLIP False."
    )


def _clips_to_mix(cfg: Config) -> str:
    num_gpus = max(cfg.NUM_GPUS, 1)
    if not cfg.MIXUP.ENABLE or cfg.TRAIN.BATCH_SIZE * views_per_video(cfg) > num_gpus:
        return ""
    return (
        "MIXUP.ENABLE must be False where the batch of a GPU is a single clip, got True. "
        f"Try TRAIN.BATCH_SIZE {2 * num_gpus}."
    )


def _something_to_mix_by(cfg: Config) -> str:
    if not cfg.MIXUP.ENABLE or cfg.MIXUP.ALPHA > 0 or cfg.MIXUP.CUTMIX_ALPHA > 0:
        return ""
    return (
        "MIXUP.ENABLE must be False where MIXUP.ALPHA and MIXUP.CUTMIX_ALPHA are both 0, got "
        "True. Try MIXUP.ALPHA 0.8."
    )


def _warmup_fits(cfg: Config) -> str:
    if cfg.SOLVER.WARMUP_EPOCHS <= cfg.SOLVER.MAX_EPOCH:
        return ""
    return (
        f"SOLVER.WARMUP_EPOCHS must be at most SOLVER.MAX_EPOCH ({cfg.SOLVER.MAX_EPOCH}), got "
        f"{cfg.SOLVER.WARMUP_EPOCHS}. Try SOLVER.WARMUP_EPOCHS {cfg.SOLVER.MAX_EPOCH / 10:g}."
    )


def _at_most_base_lr(key: str, cfg: Config) -> str:
    rate: float = value_of(cfg, key)
    if rate <= cfg.SOLVER.BASE_LR:
        return ""
    return f"{key} must be at most SOLVER.BASE_LR ({cfg.SOLVER.BASE_LR}), got {rate}. Try {key} 0."


CONTRADICTIONS = (
    Contradiction(("TRAIN.BATCH_SIZE", "NUM_GPUS", "TRAIN.ENABLE"), _equal_parts),
    Contradiction(("TRAIN.ENABLE", "TEST.ENABLE"), _something_to_do),
    Contradiction(("TEST.ENABLE", "TASK"), _no_test_of_pixels),
    Contradiction(("MODEL.ARCH", "TASK", "MODEL.MODEL_NAME"), _autoencoder_for_ssl),
    Contradiction(("MIXUP.ENABLE", "TASK"), _no_mixing_of_pixels),
    Contradiction(("MODEL.FREEZE_LAYERS", "MODEL.LINEAR_PROBE", "TASK"), _all_learn_in_ssl),
    Contradiction(("MODEL.DROPOUT_RATE", "SOLVER.LABEL_SMOOTHING", "TASK"), _no_labels_in_ssl),
    Contradiction(("MASK.DECODER_EMBED_DIM", "MASK.DECODER_NUM_HEADS"), _heads_share_channels),
    Contradiction(("TEST.SCORES_FILE",), _plain_scores_file),
    Contradiction(("TEST.DATASET", "TRAIN.DATASET", "TRAIN.ENABLE", "TEST.ENABLE"), _same_dataset),
    Contradiction(
        ("DATA.TEST_CROP_SIZE", "DATA.TRAIN_CROP_SIZE", "MODEL.ARCH"),
        _one_crop_size,
    ),
    *(
        Contradiction((key,), partial(_ordered, key))
        for key in ("DATA.TRAIN_JITTER_SCALES_RELATIVE", "DATA.TRAIN_JITTER_ASPECT_RELATIVE")
    ),
    Contradiction(("DATA.RANDOM_FLIP", "TRAIN.DATASET"), _no_flip_for_left_and_right),
    Contradiction(
        ("MIXUP.ENABLE", "TRAIN.BATCH_SIZE", "AUG.ENABLE", "AUG.NUM_SAMPLE", "NUM_GPUS"),
        _clips_to_mix,
    ),
    Contradiction(("MIXUP.ENABLE", "MIXUP.ALPHA", "MIXUP.CUTMIX_ALPHA"), _something_to_mix_by),
    Contradiction(("SOLVER.WARMUP_EPOCHS", "SOLVER.MAX_EPOCH"), _warmup_fits),
    *(
        Contradiction((key, "SOLVER.BASE_LR"), partial(_at_most_base_lr, key))
        for key in ("SOLVER.COSINE_END_LR", "SOLVER.WARMUP_START_LR")
    ),
)
