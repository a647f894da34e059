"""Every YAML under configs/: it loads, it says what it is, and it holds the paper's settings."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hiera_video.config import load_config, to_yaml
from hiera_video.solver.build import effective_batch

REPO = Path(__file__).resolve().parents[2]
EVERY = sorted(
    path.relative_to(REPO).as_posix()
    for path in (REPO / "configs").rglob("*.yaml")
    if path.parent.name != "Sweeps"  # grids of configs: tests/tools/test_sweep.py
)
RECIPES = [path for path in EVERY if "/HIERA_" in path and "/Demo/" not in path]
PRETRAINING = [path for path in RECIPES if path.endswith("_MAE_PT.yaml")]

# Ryali et al., Table 11 (fine-tuning, 3200 pretraining epochs): learning rate, epochs, dropout,
# drop path, layer decay. Each epoch of the paper is half a pass: it counts both repeated samples.
KINETICS = {
    "B": (8e-4, 150, 0.3, 0.2, 0.8),
    "BPLUS": (8e-4, 150, 0.3, 0.2, 0.8),
    "L": (8e-4, 100, 0.5, 0.2, 0.875),
    "H": (4e-4, 100, 0.5, 0.3, 0.875),
}
MODEL_NAMES = {"B": "base", "BPLUS": "base_plus", "L": "large", "H": "huge"}


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPO)


def test_all_recipes_are_there():
    for dataset in ("Kinetics", "SSv2"):
        for size in MODEL_NAMES:
            assert f"configs/{dataset}/HIERA_{size}.yaml" in RECIPES
            assert f"configs/{dataset}/HIERA_{size}_MAE_PT.yaml" in PRETRAINING


@pytest.mark.parametrize("path", EVERY)
def test_yaml_loads_and_round_trips(path, tmp_path):
    cfg = load_config(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_yaml(cfg), encoding="utf-8")
    assert load_config(str(copy)) == cfg


@pytest.mark.parametrize("path", EVERY)
def test_yaml_opens_with_a_comment(path):
    text = Path(path).read_text(encoding="utf-8")
    assert text.startswith("# ")


@pytest.mark.parametrize("path", RECIPES)
def test_recipe_header_tells_source_command_hardware_and_result(path):
    header = Path(path).read_text(encoding="utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Paper:", "Command:", "Weights:", "Hardware:", "Expected:", "Not yet run by us"):
        assert word in header
    assert re.search(r"Expected: (\d\d\.\d % top-1 by the paper|the paper gives none)", header)


@pytest.mark.parametrize("path", RECIPES)
def test_recipe_command_parses_and_loads(path):
    text = Path(path).read_text(encoding="utf-8").replace("\\\n#", "")
    command = re.search(r"# Command: +(python .*)", text)
    assert command
    program, script, flag, cfg_path, *overrides = shlex.split(command[1])
    assert (program, script, flag, cfg_path) == ("python", "tools/run_net.py", "--cfg", path)
    cfg = load_config(cfg_path, overrides)
    assert cfg.DATA.PATH_TO_DATA_DIR
    if path in PRETRAINING:
        return
    assert f"mae_{cfg.MODEL.MODEL_NAME}.pth" == cfg.TRAIN.CHECKPOINT_FILE_PATH
    load_config(cfg_path, [*overrides, "TRAIN.ENABLE", "False"])


@pytest.mark.parametrize("path", [path for path in EVERY if "/Demo/" not in path])
def test_values_cite_a_table_or_are_marked(path):
    section = ""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            section = line.partition(":")[0]
        key = line.strip().partition(":")[0]
        bookkeeping = key in ("ENABLE", "ARCH", "MODEL_NAME", "NUM_CLASSES", "ACCUM_STEPS")
        if section in ("DATA", "MODEL", "MASK", "AUG", "MIXUP", "SOLVER") and key != section:
            assert bookkeeping or re.search(r"# (Table \d+|not in the paper.*: follows )", line)


@pytest.mark.parametrize("size", list(KINETICS))
def test_kinetics_settings_are_those_of_table_11(size):
    cfg = load_config(f"configs/Kinetics/HIERA_{size}.yaml")
    lr, epochs, dropout, drop_path, layer_decay = KINETICS[size]
    solver, aug = cfg.SOLVER, cfg.AUG
    assert f"hiera_{MODEL_NAMES[size]}_16x224" == cfg.MODEL.MODEL_NAME
    assert cfg.MODEL.NUM_CLASSES == 400
    assert (dropout, drop_path) == (cfg.MODEL.DROPOUT_RATE, cfg.MODEL.DROP_PATH_RATE)
    assert (lr, layer_decay) == (solver.BASE_LR, solver.LAYER_DECAY)
    assert epochs == solver.MAX_EPOCH * aug.NUM_SAMPLE
    assert solver.WARMUP_EPOCHS * aug.NUM_SAMPLE == 10
    assert cfg.TRAIN.BATCH_SIZE * solver.ACCUM_STEPS == 256
    assert effective_batch(cfg) == solver.BASE_BATCH_SIZE
    assert (solver.OPTIMIZING_METHOD, solver.BETAS) == ("adamw", (0.9, 0.999))
    assert (solver.WEIGHT_DECAY, solver.CLIP_GRAD_L2NORM) == (0.05, 5.0)
    assert (aug.NUM_SAMPLE, solver.LABEL_SMOOTHING) == (2, 0.1)
    assert (cfg.MIXUP.ENABLE, cfg.MIXUP.ALPHA, cfg.MIXUP.CUTMIX_ALPHA) == (True, 0.8, 1.0)
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.DATA.TRAIN_CROP_SIZE) == (16, 4, 224)
    assert (cfg.TEST.NUM_TEMPORAL_CLIPS, cfg.TEST.NUM_SPATIAL_CROPS) == (5, 3)
    assert cfg.TRAIN.MIXED_PRECISION


@pytest.mark.parametrize("size", list(MODEL_NAMES))
def test_ssv2_settings_are_those_of_table_12_or_marked(size):
    path = f"configs/SSv2/HIERA_{size}.yaml"
    cfg = load_config(path)
    solver = cfg.SOLVER
    assert f"hiera_{MODEL_NAMES[size]}_16x224" == cfg.MODEL.MODEL_NAME
    assert (cfg.MODEL.NUM_CLASSES, cfg.DATA.RANDOM_FLIP) == (174, False)
    assert (cfg.DATA.SAMPLING, cfg.DATA.NUM_FRAMES) == ("uniform", 16)
    assert (cfg.TEST.NUM_TEMPORAL_CLIPS, cfg.TEST.NUM_SPATIAL_CROPS) == (1, 3)
    assert (solver.OPTIMIZING_METHOD, solver.WEIGHT_DECAY) == ("sgd", 1e-4)
    assert (solver.WARMUP_EPOCHS, solver.MAX_EPOCH) == (3, 40)
    assert cfg.TRAIN.BATCH_SIZE * solver.ACCUM_STEPS == 256
    assert effective_batch(cfg) == solver.BASE_BATCH_SIZE
    own = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    marked = Path(path).read_text(encoding="utf-8").count("# not in the paper: follows ")
    if size == "L":
        assert (solver.BASE_LR, solver.LAYER_DECAY) == (0.16, 0.875)
        assert (cfg.MODEL.DROPOUT_RATE, cfg.MODEL.DROP_PATH_RATE) == (0.5, 0.1)
        assert marked == 0
    else:
        # All but the model's name, and the accumulation that goes with the batch.
        assert marked == sum(len(v) for v in own.values() if isinstance(v, dict)) - 2


# Ryali et al., Table 11 (pretraining of 3200 epochs): learning rate, drop path.
KINETICS_PRETRAINING = {
    "B": (8e-4, 0.1),
    "BPLUS": (8e-4, 0.2),
    "L": (8e-4, 0.2),
    "H": (3.2e-4, 0.4),
}


def check_pretraining(cfg, size):
    solver, aug, mask = cfg.SOLVER, cfg.AUG, cfg.MASK
    assert (cfg.TASK, cfg.TEST.ENABLE) == ("ssl", False)
    assert f"mae_hiera_{MODEL_NAMES[size]}_16x224" == cfg.MODEL.MODEL_NAME
    assert (mask.STRATEGY, mask.RATIO, mask.DECODER_KEEP_RATIO) == ("tube", 0.9, 1.0)
    assert (mask.DECODER_DEPTH, mask.DECODER_NUM_HEADS, mask.DECODER_EMBED_DIM) == (8, 8, 512)
    assert (aug.NUM_SAMPLE, aug.AA_TYPE, aug.RE_PROB) == (4, "", 0.0)
    assert cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE == (0.5, 1.0)
    assert (solver.OPTIMIZING_METHOD, solver.BETAS) == ("adamw", (0.9, 0.95))
    assert (solver.WEIGHT_DECAY, solver.CLIP_GRAD_L2NORM) == (0.05, 0.02)
    assert effective_batch(cfg) == solver.BASE_BATCH_SIZE


@pytest.mark.parametrize("size", list(KINETICS_PRETRAINING))
def test_kinetics_pretraining_is_that_of_table_11(size):
    cfg = load_config(f"configs/Kinetics/HIERA_{size}_MAE_PT.yaml")
    check_pretraining(cfg, size)
    assert (cfg.SOLVER.BASE_LR, cfg.MODEL.DROP_PATH_RATE) == KINETICS_PRETRAINING[size]
    assert cfg.SOLVER.MAX_EPOCH * cfg.AUG.NUM_SAMPLE == 3200
    assert cfg.SOLVER.WARMUP_EPOCHS * cfg.AUG.NUM_SAMPLE == 120
    assert (cfg.TRAIN.BATCH_SIZE * cfg.SOLVER.ACCUM_STEPS, cfg.DATA.RANDOM_FLIP) == (512, True)
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.DATA.TRAIN_CROP_SIZE) == (16, 4, 224)


@pytest.mark.parametrize("size", list(MODEL_NAMES))
def test_ssv2_pretraining_is_that_of_table_12_or_marked(size):
    path = f"configs/SSv2/HIERA_{size}_MAE_PT.yaml"
    cfg = load_config(path)
    check_pretraining(cfg, size)
    assert cfg.SOLVER.MAX_EPOCH * cfg.AUG.NUM_SAMPLE == 1600
    assert cfg.SOLVER.WARMUP_EPOCHS * cfg.AUG.NUM_SAMPLE == 30
    assert (cfg.TRAIN.BATCH_SIZE * cfg.SOLVER.ACCUM_STEPS, cfg.DATA.RANDOM_FLIP) == (1024, False)
    marked = Path(path).read_text(encoding="utf-8").count("# not in the paper: follows ")
    assert marked == (0 if size == "L" else 2)
    if size == "L":
        assert (cfg.SOLVER.BASE_LR, cfg.MODEL.DROP_PATH_RATE) == (8e-4, 0.2)


def test_linear_probe_builds_on_the_fine_tuning_of_kinetics():
    cfg = load_config("configs/Kinetics/HIERA_B_LINEAR.yaml")
    assert cfg.MODEL.LINEAR_PROBE
    assert effective_batch(cfg) == cfg.SOLVER.BASE_BATCH_SIZE == 256
    assert (cfg.MIXUP.ENABLE, cfg.AUG.AA_TYPE, cfg.SOLVER.WEIGHT_DECAY) == (False, "", 0.0)
    assert cfg.TEST.NUM_TEMPORAL_CLIPS == 5
