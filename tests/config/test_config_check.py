"""Contradictions between keys, and the advice on keys that other toolkits name otherwise."""

import dataclasses

import pytest

from hiera_video.config import Config, ConfigError, load_config
from hiera_video.config.check import CONTRADICTIONS
from hiera_video.config.rules import read_value
from hiera_video.config.schema import key_specs, sections

SSL = "TASK ssl MODEL.ARCH hiera_mae TEST.ENABLE False"
CASES = {
    "NUM_GPUS 4 TRAIN.BATCH_SIZE 6": "TRAIN.BATCH_SIZE must be divisible by NUM_GPUS (4), since "
    "each GPU gets an equal part, got 6. Try TRAIN.BATCH_SIZE 8.",
    "TRAIN.ENABLE False TEST.ENABLE False": "TRAIN.ENABLE or TEST.ENABLE must be True",
    "TASK ssl MODEL.ARCH hiera_mae": "TEST.ENABLE must be False for TASK ssl, which learns "
    "no labels to test, got True.",
    "TASK ssl TEST.ENABLE False": "MODEL.ARCH must be 'hiera_mae' for TASK ssl, got 'hiera'. Try "
    "MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_base_16x224.",
    f"{SSL} MIXUP.ENABLE True": "MIXUP.ENABLE must be False for TASK ssl, got True. Try "
    "MIXUP.ENABLE False.",
    f"{SSL} MODEL.FREEZE_LAYERS 2": "MODEL.FREEZE_LAYERS must be 0 and MODEL.LINEAR_PROBE False "
    "for TASK ssl, got 2 and False",
    f"{SSL} MODEL.DROPOUT_RATE 0.3": "MODEL.DROPOUT_RATE and SOLVER.LABEL_SMOOTHING must be 0 for "
    "TASK ssl, which has neither classifier nor labels, got 0.3 and 0.0.",
    "MASK.DECODER_EMBED_DIM 500": "MASK.DECODER_EMBED_DIM must be divisible by "
    "MASK.DECODER_NUM_HEADS (8), got 500. Try MASK.DECODER_EMBED_DIM 496.",
    "TEST.SCORES_FILE a/b.npz": "TEST.SCORES_FILE must be a file name, without a folder, got "
    "'a/b.npz'. Try b.npz.",
    "TRAIN.DATASET ssv2 DATA.RANDOM_FLIP False": "TEST.DATASET must be TRAIN.DATASET ('ssv2')",
    "DATA.TEST_CROP_SIZE 256": "DATA.TEST_CROP_SIZE must be DATA.TRAIN_CROP_SIZE (224)",
    "DATA.TRAIN_JITTER_SCALES_RELATIVE [1,0.5]": "must be [smallest, largest], got [1.0, 0.5]. "
    "Try [0.5, 1.0].",
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE [2,1]": "must be [smallest, largest], got [2.0, 1.0]",
    "TRAIN.DATASET ssv2 TEST.DATASET ssv2": "DATA.RANDOM_FLIP must be False for ssv2",
    "MIXUP.ENABLE True TRAIN.BATCH_SIZE 1": "MIXUP.ENABLE must be False where the batch "
    "of a GPU is a single clip, got True. Try TRAIN.BATCH_SIZE 2.",
    "MIXUP.ENABLE True MIXUP.ALPHA 0 MIXUP.CUTMIX_ALPHA 0": "MIXUP.ALPHA and MIXUP.CUTMIX_ALPHA",
    "SOLVER.WARMUP_EPOCHS 101": "SOLVER.WARMUP_EPOCHS must be at most SOLVER.MAX_EPOCH (100)",
    "SOLVER.COSINE_END_LR 1": "SOLVER.COSINE_END_LR must be at most SOLVER.BASE_LR (0.0008)",
    "SOLVER.WARMUP_START_LR 1": "SOLVER.WARMUP_START_LR must be at most SOLVER.BASE_LR (0.0008)",
}


@pytest.mark.parametrize("words", list(CASES))
def test_contradiction_is_refused(words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, words.split())
    assert len(caught.value.problems) == 1
    assert CASES[words] in caught.value.problems[0]


def test_there_is_a_case_for_every_contradiction():
    assert len(CASES) == len(CONTRADICTIONS)


# Other ways into the same rules.
MORE_CASES = {
    "MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_large_16x224": "MODEL.ARCH must be a "
    "classifier's for TASK classify, got 'hiera_mae'. Try TASK ssl, or MODEL.ARCH hiera "
    "MODEL.MODEL_NAME hiera_large_16x224.",
    "TASK ssl TEST.ENABLE False MODEL.ARCH baselines MODEL.MODEL_NAME x3d_s": "Try MODEL.ARCH "
    "hiera_mae MODEL.MODEL_NAME mae_hiera_base_16x224.",
    f"{SSL} MODEL.LINEAR_PROBE True": "MODEL.LINEAR_PROBE False for TASK ssl, got 0 and True",
    f"{SSL} SOLVER.LABEL_SMOOTHING 0.1": "for TASK ssl, which has neither classifier nor labels, "
    "got 0.0 and 0.1. Try MODEL.DROPOUT_RATE 0 SOLVER.LABEL_SMOOTHING 0.",
    "MASK.DECODER_NUM_HEADS 1024": "(1024), got 512. Try MASK.DECODER_EMBED_DIM 1024.",
}


@pytest.mark.parametrize("words", list(MORE_CASES))
def test_contradiction_has_other_ways_in(words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, words.split())
    assert len(caught.value.problems) == 1
    assert MORE_CASES[words] in caught.value.problems[0]


@pytest.mark.parametrize(
    "words",
    [
        f"{SSL} MODEL.MODEL_NAME mae_hiera_base_16x224",
        f"{SSL} MASK.DECODER_KEEP_RATIO 0.5 MASK.STRATEGY frame MASK.RATIO 0.6",
        "MODEL.FREEZE_LAYERS 3",
        "MODEL.LINEAR_PROBE True",
        "MASK.DECODER_EMBED_DIM 384 MASK.DECODER_NUM_HEADS 6",
        "TRAIN.ENABLE False",
        "TEST.ENABLE False",
        "TRAIN.DATASET ssv2 TEST.ENABLE False DATA.RANDOM_FLIP False",
        "MODEL.ARCH baselines DATA.TEST_CROP_SIZE 256",
        "MIXUP.ENABLE True TRAIN.BATCH_SIZE 1 AUG.NUM_SAMPLE 2",
        "MIXUP.ENABLE True MIXUP.ALPHA 0",
        "SOLVER.WARMUP_EPOCHS 100",
        "NUM_GPUS 0",
        "NUM_GPUS 8 TRAIN.BATCH_SIZE 16 MIXUP.ENABLE True",
        "NUM_GPUS 3 TRAIN.ENABLE False",
        "DATA.TRAIN_JITTER_SCALES_RELATIVE [1,1]",
    ],
)
def test_what_is_no_contradiction_is_allowed(words):
    load_config(None, words.split())


def test_contradiction_shows_where_its_first_key_was_set(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("RNG_SEED: 1\nSOLVER:\n  WARMUP_EPOCHS: 101\n")
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert caught.value.problems[0].startswith(f"{path}:3: SOLVER.WARMUP_EPOCHS must")


class Recorder:
    """Stand in for a config (section) and write down which keys are read."""

    def __init__(self, target, read, prefix=""):
        self._target, self._read, self._prefix = target, read, prefix

    def __getattr__(self, name):
        value = getattr(self._target, name)
        if name in sections() and not self._prefix:
            return Recorder(value, self._read, f"{name}.")
        self._read.add(self._prefix + name)
        return value


@pytest.mark.parametrize("words", list(CASES))
def test_contradiction_reads_only_the_keys_it_declares(words):
    pairs = words.split()
    for rule in CONTRADICTIONS:
        assert set(rule.keys) <= set(key_specs())
        read = set()
        # The config of the case itself cannot be loaded, so its values go straight in.
        rule.find(Recorder(_unchecked(pairs), read))
        assert read <= set(rule.keys)


def _unchecked(pairs):
    cfg = Config()
    for name, text in zip(pairs[::2], pairs[1::2], strict=True):
        value = read_value(key_specs()[name], text)
        section, _, leaf = name.rpartition(".")
        if section:
            part = dataclasses.replace(getattr(cfg, section), **{leaf: value})
            cfg = dataclasses.replace(cfg, **{section: part})
        else:
            cfg = dataclasses.replace(cfg, **{leaf: value})
    return cfg
