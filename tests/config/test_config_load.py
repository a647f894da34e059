"""load_config: what it reads, what it refuses, and that it refuses everything at once."""

import pytest

from hiera_video.config import (
    Config,
    ConfigError,
    diff_from_defaults,
    load_config,
    to_dict,
    to_yaml,
    value_of,
)
from hiera_video.config.schema import key_specs
from hiera_video.utils.errors import UserError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a YAML file into a fresh working directory; messages then hold short paths."""
    monkeypatch.chdir(tmp_path)

    def write_file(text, name="x.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return name

    return write_file


def problems(path, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return list(caught.value.problems)


def test_no_file_and_no_overrides_give_the_defaults():
    assert load_config(None) == Config()


def test_yaml_sets_keys_and_lists_become_tuples(write):
    path = write("OUTPUT_DIR: /tmp/a\nTRAIN:\n  BATCH_SIZE: 16\nDATA:\n  MEAN: [0.5, 0, 1]\n")
    cfg = load_config(path)
    assert cfg.OUTPUT_DIR == "/tmp/a"
    assert cfg.TRAIN.BATCH_SIZE == 16
    assert cfg.DATA.MEAN == (0.5, 0.0, 1.0)
    assert diff_from_defaults(cfg) == {
        "OUTPUT_DIR": "/tmp/a",
        "TRAIN.BATCH_SIZE": 16,
        "DATA.MEAN": [0.5, 0.0, 1.0],
    }


def test_number_that_yaml_reads_as_text_and_int_for_float(write):
    # YAML 1.1 wants a dot in a float: without one, 8e-4 is text.
    cfg = load_config(write("SOLVER:\n  BASE_LR: 8e-4\n  WEIGHT_DECAY: 1\n  BETAS: [0, 9e-1]\n"))
    assert cfg.SOLVER.BASE_LR == 0.0008
    assert cfg.SOLVER.WEIGHT_DECAY == 1.0
    assert isinstance(cfg.SOLVER.WEIGHT_DECAY, float)
    assert cfg.SOLVER.BETAS == (0.0, 0.9)


def test_section_without_keys_changes_nothing(write):
    assert load_config(write("TRAIN:\n  # BATCH_SIZE: 3\nTEST: {}\nRNG_SEED: 0\n")) == Config()


def test_yaml_merge_key_is_understood(write):
    cfg = load_config(write("TRAIN: &t\n  BATCH_SIZE: 4\nTEST:\n  <<: *t\n  VIEWS_TABLE: true\n"))
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TEST.BATCH_SIZE, cfg.TEST.VIEWS_TABLE) == (4, 4, True)


def test_bases_are_relative_chained_and_overridden(write):
    write("RNG_SEED: 1\nLOG_PERIOD: 1\nTRAIN:\n  BATCH_SIZE: 1\n  EVAL_PERIOD: 7\n", "root.yaml")
    write("_BASE_: ../root.yaml\nLOG_PERIOD: 2\nTRAIN:\n  BATCH_SIZE: 2\n", "sub/mid.yaml")
    # The base is read first wherever its line stands.
    cfg = load_config(write("TRAIN:\n  BATCH_SIZE: 3\n_BASE_: sub/mid.yaml\n"))
    assert (cfg.RNG_SEED, cfg.LOG_PERIOD) == (1, 2)
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.EVAL_PERIOD) == (3, 7)


def test_several_bases_later_ones_win(write):
    write("RNG_SEED: 1\nLOG_PERIOD: 1\n", "a.yaml")
    write("RNG_SEED: 2\n", "b.yaml")
    cfg = load_config(write("_BASE_: [a.yaml, b.yaml]\n"))
    assert (cfg.RNG_SEED, cfg.LOG_PERIOD) == (2, 1)


def test_base_loop_is_refused(write):
    write("_BASE_: x.yaml\n", "y.yaml")
    found = problems(write("\n_BASE_: y.yaml\n"))
    assert len(found) == 1
    assert "y.yaml:1: _BASE_" in found[0]
    assert "x.yaml -> y.yaml -> x.yaml" in found[0]


def test_base_that_is_missing_is_named_with_the_line_that_asks_for_it(write):
    write("RNG_SEED: 1\n", "bases.yaml")
    assert problems(write("RNG_SEED: 3\n_BASE_: base.yaml\n")) == [
        "x.yaml:2: _BASE_ must be a YAML file, got 'base.yaml', which does not exist. "
        "Did you mean bases.yaml?"
    ]


def test_base_that_is_no_path_is_refused(write):
    assert "must be a path or a list of paths, got 3" in problems(write("_BASE_: 3\n"))[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["must hold keys and values, got an empty file"]),
        ("# only a comment\n", ["got an empty file"]),
        ("- a\n- b\n", ["x.yaml:1", "got a single list"]),
        ("hello\n", ["x.yaml:1", "got a single text"]),
        ("RNG_SEED: 1\nTRAIN: {\n", ["x.yaml:3", "valid YAML"]),
        ("RNG_SEED: 1\n\tTRAIN: 3\n", ["x.yaml:2", "valid YAML"]),
        ("RNG_SEED: 1\n---\nRNG_SEED: 2\n", ["x.yaml:2", "valid YAML"]),
        ("a\0b: 3\n", ["x.yaml", "valid YAML"]),
        ("RNG_SEED: !!python/object:os.system\n", ["x.yaml:1", "RNG_SEED must be a plain value"]),
        ("OUTPUT_DIR: 2024-99-99\n", ["x.yaml:1", "OUTPUT_DIR must be a plain value"]),
        ("? [a, b]\n: 3\n", ["x.yaml:1", "a key must be a name"]),
        ("DATA: &a\n  MEAN: &b [*b]\n", ["x.yaml:2", "DATA.MEAN must be a plain value"]),
        ("DATA: &a\n  X:\n    Y: *a\n", ["x.yaml:3", "must not contain itself"]),
        ("A: " + "[" * 3000, ["nested too deep"]),
    ],
)
def test_broken_yaml_is_one_problem_with_its_line(write, text, words):
    found = problems(write(text))
    assert len(found) == 1
    assert all(word in found[0] for word in words), found[0]
    assert "\n" not in found[0]


def test_paths_that_are_no_yaml_file(write, tmp_path):
    write("RNG_SEED: 1\n", "configs/HIERA_B.yaml")
    (tmp_path / "weights.pyth").write_bytes(bytes(range(128, 256)))
    assert "Did you mean configs/HIERA_B.yaml?" in problems("configs/HIERA_C.yaml")[0]
    assert "the directory 'configs'. It holds HIERA_B.yaml" in problems("configs")[0]
    assert "there is no directory 'config'" in problems("config/HIERA_B.yaml")[0]
    assert "'weights.pyth', which is not a text file" in problems("weights.pyth")[0]
    assert "got an empty path" in problems("")[0]


def test_duplicate_key_shows_both_lines(write):
    text = "TRAIN:\n  BATCH_SIZE: 1\n  EVAL_PERIOD: 2\n  BATCH_SIZE: 3\nTRAIN:\n  ENABLE: True\n"
    found = problems(write(text))
    assert len(found) == 2
    assert found[0].startswith(
        "x.yaml:5: TRAIN must be set once in a file, got it on lines 1 and 5"
    )
    assert "TRAIN.BATCH_SIZE must be set once in a file, got it on lines 2 and 4" in found[1]


def test_same_key_in_base_and_file_is_no_duplicate(write):
    write("RNG_SEED: 1\n", "base.yaml")
    assert load_config(write("_BASE_: base.yaml\nRNG_SEED: 2\n")).RNG_SEED == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRAIN:\n  BATCH_SIZ: 3\n", "x.yaml:2: TRAIN.BATCH_SIZ is not a key. Did you mean "
         "TRAIN.BATCH_SIZE?"),
        ("train:\n  batch_size: 3\n", "Did you mean TRAIN.BATCH_SIZE?"),
        ("DATA:\n  NUM_CLASSES: 3\n", "Did you mean MODEL.NUM_CLASSES?"),
        ("BATCH_SIZE: 3\n", "Did you mean TRAIN.BATCH_SIZE or TEST.BATCH_SIZE?"),
        ("TRAINS:\n  BATCH_SIZ: 3\n", "Did you mean TRAIN.BATCH_SIZE?"),
        ("AUGG:\n  X: 3\n", "AUGG is not a section. The sections are TRAIN, TEST,"),
        ("AUG:\n  COLOUR: 3\n", "AUG.COLOUR is not a key. AUG has ENABLE, NUM_SAMPLE,"),
        ("SEED: 3\n", "Did you mean RNG_SEED?"),
        ("DATA:\n  CROP_SIZE: 3\n", "Did you mean DATA.TRAIN_CROP_SIZE or DATA.TEST_CROP_SIZE?"),
        ("TRAIN: 3\n", "TRAIN must be a section of keys, got a value. Try TRAIN.ENABLE: with a "
         "space after the colon."),
        ("RNG_SEED:\n  A: 3\n", "RNG_SEED must be a value, got keys under it."),
        ("TEST:\n  NUM_ENSEMBLE_VIEWS: 5\n", "TEST.NUM_ENSEMBLE_VIEWS is PySlowFast's name; here "
         "it is TEST.NUM_TEMPORAL_CLIPS."),
        ("MVIT:\n  DROPPATH_RATE: 0.1\n", "here it is MODEL.DROP_PATH_RATE."),
        ("DATA:\n  TRAIN_JITTER_SCALES: [256, 320]\n", "DATA.TRAIN_JITTER_SCALES_RELATIVE"),
        ("RESNET:\n  DEPTH: 50\n  STRIDE_1X1: False\n", "RESNET is a section of PySlowFast or"),
    ],
)  # fmt: skip
def test_unknown_key_is_explained_in_one_problem(write, text, message):
    found = problems(write(text))
    assert len(found) == 1
    assert message in found[0]


HUGE = ["1" + 40 * "0", "9" * 400, "9" * 5000, "0x" + "f" * 5000, "1" * 400 + ".0", "-" + "9" * 400]


@pytest.mark.parametrize("huge", HUGE, ids=["10^40", "400", "5000", "hex", "float", "minus"])
@pytest.mark.parametrize("name", list(key_specs()))
def test_a_number_that_is_too_large_is_one_line_for_any_key(write, name, huge):
    section, _, leaf = name.rpartition(".")
    found = [
        problems(write(f"{section}: {{{leaf}: {huge}}}\n" if section else f"{leaf}: {huge}\n"))
    ]
    if key_specs()[name].kind is not str:  # for which it is text
        found.append(problems(None, [name, huge]))
    for (problem,) in found:
        assert name in problem
        assert "\n" not in problem
        assert len(problem) < 700  # some rules list the modules there are


@pytest.mark.parametrize("name", list(key_specs()))
def test_every_number_has_bounds(name):
    spec = key_specs()[name]
    if spec.kind in (int, float, tuple) and not spec.key.choices:
        key = spec.key
        assert (key.minimum, key.above) != (None, None)
        assert (key.maximum, key.below) != (None, None)


def test_home_is_put_for_a_tilde_where_a_path_is_taken(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = [name for name, spec in key_specs().items() if spec.key.is_path]
    assert paths == [
        *("OUTPUT_DIR", "TRAIN.CHECKPOINT_FILE_PATH", "TEST.CHECKPOINT_FILE_PATH"),
        *("DATA.PATH_TO_DATA_DIR", "DATA.PATH_PREFIX"),
    ]
    for name in paths:
        cfg = load_config(None, [name, "~/some/where"])
        assert value_of(cfg, name) == str(tmp_path / "some/where")
    write("OUTPUT_DIR: ~/out\nDATA: {PATH_PREFIX: a~b}\n")
    cfg = load_config("~/x.yaml")
    assert (cfg.OUTPUT_DIR, cfg.DATA.PATH_PREFIX) == (str(tmp_path / "out"), "a~b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRAIN: {BATCH_SIZE: many}", "TRAIN.BATCH_SIZE must be an integer of at least 1 and "
         "at most 1000000, got 'many'. Try 8."),
        ("TRAIN: {BATCH_SIZE: true}", "and at most 1000000, got True. Try 8."),
        ("TRAIN: {BATCH_SIZE: 1e1}", "got '1e1'. Try 10."),
        ("DATA_LOADER: {CACHE: 5GB}", "got '5GB'. Write the number alone, in GiB. Try 0.0."),
        ("DIST: {TIMEOUT_SEC: 5m}", "got '5m'. Write the number alone, in seconds. Try 600.0."),
        ("TRAIN: {BATCH_SIZE: 16.0}", "got 16.0. Try 16."),
        ("TRAIN: {BATCH_SIZE: 0}", "and at most 1000000, got 0."),
        ("TRAIN: {BATCH_SIZE: }", "got nothing."),
        ("TRAIN: {BATCH_SIZE: [8]}", "got [8]."),
        ("TRAIN: {ENABLE: 1}", "TRAIN.ENABLE must be True or False, got 1. Try True."),
        ("SOLVER: {BASE_LR: true}", "must be a number above 0 and at most 1e+30, got True."),
        ("SOLVER: {BASE_LR: .nan}", "above 0 and at most 1e+30, got nan."),
        ("SOLVER: {BASE_LR: .inf}", "above 0 and at most 1e+30, got inf."),
        ("SOLVER: {BASE_LR: 0}", "above 0 and at most 1e+30, got 0.0."),
        ("SOLVER: {LAYER_DECAY: 1.5}", "must be a number above 0 and at most 1, got 1.5."),
        ("SOLVER: {BETAS: [0.9, 1]}", "SOLVER.BETAS must be a list of 2 numbers, each of at least "
         "0 and below 1, got [0.9, 1.0]."),
        ("SOLVER: {OPTIMIZING_METHOD: mt_adamw}", "must be one of 'adamw', 'sgd', got 'mt_adamw'. "
         "Did you mean adamw?"),
        ("TEST: {NUM_SPATIAL_CROPS: 2}", "must be one of 1, 3, got 2. Try 3."),
        ("TEST: {SCORES_FILE: scores.csv}", "must be a file name that ends in .npz"),
        ("DATA: {MEAN: 0.45}", "and at most 100, got 0.45. Try [0.45, 0.45, 0.45]."),
        ("DATA: {MEAN: [0.45, 0.45]}", "and at most 100, got [0.45, 0.45]."),
        ("DATA: {MEAN: [0.45, 0.45, red]}", "got [0.45, 0.45, 'red']."),
        ("DATA: {STD: [0.2, 0.2, 0]}", "each of at least 1e-06 and at most 100, got [0.2, "
         "0.2, 0.0]."),
        ("DATA: {DECODING_BACKEND: py_av}", "Did you mean pyav?"),
        ("OUTPUT_DIR: 2024", "OUTPUT_DIR must be text that is not empty, got 2024. Try '2024'."),
        ("OUTPUT_DIR: ''", "OUTPUT_DIR must be text that is not empty, got ''."),
        ("TASK: dance", "TASK must be one of 'classify', 'ssl', got 'dance'."),
        ("MASK: {STRATEGY: tubes}", "Did you mean tube?"),
    ],
)  # fmt: skip
def test_wrong_value_is_told_with_rule_value_and_advice(write, text, message):
    found = problems(write(f"# first line\n{text}\n"))
    assert len(found) == 1
    assert found[0].startswith("x.yaml:2: ")
    assert message in found[0]


def test_all_problems_are_reported_together(write):
    write("SOLVER:\n  WARMUP_EPOCHS: 9\nTRAIN:\n  BATCH_SIZE: 1\n  BATCH_SIZE: 2\n", "base.yaml")
    path = write("_BASE_: base.yaml\nAUG:\n  COLOUR: 1\nSOLVER:\n  MAX_EPOCH: 3\nRNG_SEED: x\n")
    with pytest.raises(UserError) as caught:
        load_config(
            path, ["DATA.MEAN", "1", "NUM_GPUS", "-8", "--fast", "TRAIN.X", "1", "RNG_SEED"]
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "9 problems in x.yaml:"
    expected = [
        "base.yaml:5: TRAIN.BATCH_SIZE must be set once",
        "x.yaml:3: AUG.COLOUR is not a key",
        "x.yaml:6: RNG_SEED must be an integer",
        "command line: overrides must be KEY VALUE pairs, got the flag --fast",
        "command line: overrides must be KEY VALUE pairs, got RNG_SEED without a value",
        "command line: DATA.MEAN must be a list of 3 numbers",
        "command line: NUM_GPUS must be an integer of at least 0 and at most 1024, got -8",
        "command line: TRAIN.X is not a key",
        "base.yaml:2: SOLVER.WARMUP_EPOCHS must be at most SOLVER.MAX_EPOCH (3), got 9.0",
    ]
    assert len(lines) == 1 + len(expected)
    for line, start in zip(lines[1:], expected, strict=True):
        assert line.startswith(f"  {start}")


def test_one_problem_is_one_line_with_its_place(write):
    path = write("RNG_SEED: 1\nNUM_GPUS: -1\n")
    with pytest.raises(ConfigError, match=r"^x\.yaml:2: NUM_GPUS must be [^\n]*$"):
        load_config(path)
    # A slip on the command line does not name the file.
    path = write("RNG_SEED: 1\n")
    with pytest.raises(ConfigError, match=r"^command line: NUM_GPUS must be [^\n]*$"):
        load_config(path, ["NUM_GPUS", "-1"])
    with pytest.raises(ConfigError, match=r"^2 problems in the command line:\n"):
        load_config(path, ["NUM_GPUS", "-1", "RNG_SEED", "x"])


def test_contradictions_are_not_sought_where_a_key_is_at_fault(write):
    # The size is unreadable, so that it differs from the other one says nothing.
    found = problems(write("DATA:\n  TRAIN_CROP_SIZE: big\n  TEST_CROP_SIZE: 256\n"))
    assert len(found) == 1
    # The weights are there, under a misspelt name.
    overrides = ["TRAIN.ENABLE", "False", "TEST.CHECKPOINT_FILEPATH", "a.pyth"]
    assert len(problems(None, overrides)) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["DATA.MEAN", "[0.1,0.2,0.3]", "SOLVER.COSINE_END_LR", "1e-5", "RNG_SEED", "4294967295"],
        ["OUTPUT_DIR", "16", "TRAIN.CHECKPOINT_FILE_PATH", "a: 'b' #c", "DATA.PATH_PREFIX", "é/ß"],
        ["DATA.PATH_PREFIX", "None", "DATA.PATH_TO_DATA_DIR", "[1]", "AUG.AA_TYPE", "true"],
    ],
)
def test_yaml_round_trip(write, overrides):
    cfg = load_config(None, overrides)
    again = load_config(write(to_yaml(cfg)))
    assert again == cfg
    assert to_dict(again) == to_dict(cfg)


def test_to_dict_holds_plain_types_only():
    def check(value):
        assert type(value) in (dict, list, str, int, float, bool)
        for item in value.values() if isinstance(value, dict) else []:
            check(item)

    check(to_dict(Config()))
