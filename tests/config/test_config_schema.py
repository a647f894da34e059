"""The public keys: frozen names, documented, with defaults that obey their own rules."""

import ast
import dataclasses
from pathlib import Path

import pytest

from hiera_video.config import Config, help_text
from hiera_video.config import rules as rules_module
from hiera_video.config.check import contradictions
from hiera_video.config.rules import read_value, rule_text
from hiera_video.config.schema import key_specs, sections

# Renaming or removing a key breaks every YAML that users have: change this list on purpose only.
PUBLIC_KEYS = {
    "": "TASK NUM_GPUS OUTPUT_DIR RNG_SEED LOG_PERIOD",
    "TRAIN": "ENABLE DATASET BATCH_SIZE EVAL_PERIOD CHECKPOINT_PERIOD CHECKPOINT_ITERS "
    "KEEP_CHECKPOINTS CHECKPOINT_FILE_PATH AUTO_RESUME EMA_DECAY MAX_BAD_STEPS "
    "MIXED_PRECISION",
    "TEST": "ENABLE DATASET BATCH_SIZE CHECKPOINT_FILE_PATH NUM_TEMPORAL_CLIPS NUM_SPATIAL_CROPS "
    "VIEWS_TABLE SCORES_FILE",
    "DATA": "PATH_TO_DATA_DIR PATH_PREFIX SPLIT_NUMBER NUM_FRAMES SAMPLING_RATE TARGET_FPS "
    "SAMPLING TRAIN_CROP_SIZE TEST_CROP_SIZE TRAIN_JITTER_SCALES_RELATIVE "
    "TRAIN_JITTER_ASPECT_RELATIVE RANDOM_FLIP MEAN STD MAX_BAD_FRACTION DECODING_BACKEND "
    "SQUARE_PIXELS",
    "DATA_LOADER": "NUM_WORKERS TIMEOUT_SEC CACHE NORMALIZE_ON_DEVICE PIN_MEMORY",
    "MODEL": "ARCH MODEL_NAME NUM_CLASSES DROPOUT_RATE DROP_PATH_RATE SIMPLIFY MASK_UNIT_SIZE "
    "FREEZE_LAYERS LINEAR_PROBE ACT_CHECKPOINT COMPILE",
    "MASK": "STRATEGY RATIO DESIGN DECODER_KEEP_RATIO DECODER_DEPTH DECODER_EMBED_DIM "
    "DECODER_NUM_HEADS",
    "AUG": "ENABLE NUM_SAMPLE AA_TYPE RE_PROB RE_MODE",
    "MIXUP": "ENABLE ALPHA CUTMIX_ALPHA PROB SWITCH_PROB",
    "SOLVER": "OPTIMIZING_METHOD BASE_LR BASE_BATCH_SIZE COSINE_END_LR WARMUP_EPOCHS "
    "WARMUP_START_LR MAX_EPOCH WEIGHT_DECAY BETAS MOMENTUM LAYER_DECAY CLIP_GRAD_L2NORM "
    "ACCUM_STEPS LABEL_SMOOTHING",
    "DIST": "STRATEGY TIMEOUT_SEC WATCHDOG_SEC",
    "TENSORBOARD": "ENABLE",
}


def test_public_keys_are_these():
    expected = [
        f"{section}.{key}" if section else key
        for section, keys in PUBLIC_KEYS.items()
        for key in keys.split()
    ]
    assert list(key_specs()) == expected


def test_every_field_is_a_key_or_a_section():
    for name, section in {"": Config, **sections()}.items():
        fields = {field.name for field in dataclasses.fields(section)}
        keys = {spec.rpartition(".")[2] for spec in key_specs() if spec.rpartition(".")[0] == name}
        assert fields - keys == (set(sections()) if section is Config else set())


@pytest.mark.parametrize("name", list(key_specs()))
def test_key_has_help_and_a_default_that_obeys_its_rule(name):
    spec = key_specs()[name]
    assert spec.key.help.endswith(".")
    assert len(spec.key.help) > 10
    assert rule_text(spec)
    value = read_value(spec, spec.default)
    assert value == spec.default
    assert type(value) is type(spec.default) is spec.kind


def test_defaults_hold_together():
    assert contradictions(Config()) == []


def test_help_names_every_key_with_rule_and_source():
    text = help_text()
    for name, spec in key_specs().items():
        assert f"  {name} " in text
        assert spec.key.help in text
        assert spec.key.source in text


def test_config_is_frozen_at_every_depth():
    cfg = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.NUM_GPUS = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.TRAIN.BATCH_SIZE = 1
    with pytest.raises(TypeError):
        cfg.DATA.MEAN[0] = 0.0
    assert hash(cfg) == hash(Config())  # a mutable value anywhere would make this fail


def test_config_room_does_not_import_torch():
    for path in Path(rules_module.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "torch" for name in names), path.name
