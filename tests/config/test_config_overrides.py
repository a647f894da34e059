"""KEY VALUE pairs, as they are typed and as they are mistyped."""

import pytest

from hiera_video.config import ConfigError, load_config


def problems(*words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, words)
    return [problem.removeprefix("command line: ") for problem in caught.value.problems]


def test_pairs_as_pyslowfast_users_type_them():
    words = (
        "TRAIN.BATCH_SIZE 16 DATA.MEAN [0.45,0.4,0.3] OUTPUT_DIR /a/b SOLVER.BASE_LR 1e-3 "
        "TRAIN.AUTO_RESUME False TEST.VIEWS_TABLE true DATA.STD (0.2,0.2,0.2)"
    )
    cfg = load_config(None, words.split())
    assert cfg.TRAIN.BATCH_SIZE == 16
    assert cfg.DATA.MEAN == (0.45, 0.4, 0.3)
    assert cfg.DATA.STD == (0.2, 0.2, 0.2)
    assert cfg.OUTPUT_DIR == "/a/b"
    assert cfg.SOLVER.BASE_LR == 0.001
    assert cfg.TRAIN.AUTO_RESUME is False
    assert cfg.TEST.VIEWS_TABLE is True


@pytest.mark.parametrize("text", ["16", "None", "[1]", "1e3", "a b", "True", "-x", ""])
def test_text_stays_text(text):
    assert text == load_config(None, ["DATA.PATH_PREFIX", text]).DATA.PATH_PREFIX


def test_quotes_around_a_value_are_taken_off():
    assert load_config(None, ["OUTPUT_DIR", "'a b'"]).OUTPUT_DIR == "a b"
    assert load_config(None, ["OUTPUT_DIR", '"a'], ).OUTPUT_DIR == '"a'  # fmt: skip


def test_list_that_a_shell_took_apart():
    words = ["DATA.MEAN", "[0.1,", "0.2,", "0.3]", "RNG_SEED", "5"]
    cfg = load_config(None, words)
    assert cfg.DATA.MEAN == (0.1, 0.2, 0.3)
    assert cfg.RNG_SEED == 5


def test_list_without_an_end_does_not_swallow_what_follows():
    found = problems("DATA.MEAN", "[0.1,0.2", "NUM_GPUS", "x")
    assert len(found) == 2
    assert found[0].startswith("DATA.MEAN must be a list of 3 numbers, each")


def test_objects_are_taken_as_they_are():
    cfg = load_config(None, ["TRAIN.BATCH_SIZE", 4, "DATA.MEAN", [0, 0, 0]])
    assert (cfg.TRAIN.BATCH_SIZE, cfg.DATA.MEAN) == (4, (0.0, 0.0, 0.0))


def test_last_of_two_values_wins():
    assert load_config(None, ["RNG_SEED", "1", "RNG_SEED", "2"]).RNG_SEED == 2


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("RNG_SEED: 1\nLOG_PERIOD: 3\n")
    cfg = load_config(str(path), ["RNG_SEED", "2"])
    assert (cfg.RNG_SEED, cfg.LOG_PERIOD) == (2, 3)


def test_odd_length_names_the_key_without_a_value():
    assert problems("RNG_SEED", "1", "TRAIN.BATCH_SIZE") == [
        "overrides must be KEY VALUE pairs, got TRAIN.BATCH_SIZE without a value. "
        "Try TRAIN.BATCH_SIZE 8."
    ]


def test_missing_value_in_the_middle_does_not_shift_the_rest():
    found = problems("TRAIN.ENABLE", "SOLVER.BASE_LR", "x", "DATA.MEAN", "--seed", "3")
    assert len(found) == 4
    assert "TRAIN.ENABLE without a value. Try TRAIN.ENABLE True." in found[0]
    assert 'DATA.MEAN without a value. Try DATA.MEAN "[0.45, 0.45, 0.45]".' in found[1]
    assert "got the flag --seed" in found[2]
    assert found[3].startswith("SOLVER.BASE_LR must be a number above 0 and at most 1e+30, got 'x'")


def test_flags_and_equals_signs():
    found = problems("--lr", "0.1", "-v", "RNG_SEED=3", "OUTPUT_DIR=")
    assert len(found) == 4
    assert "got the flag --lr" in found[0]
    assert "got the flag -v" in found[1]
    assert "got RNG_SEED=3. Try RNG_SEED 3." in found[2]
    assert "Try OUTPUT_DIR VALUE." in found[3]


def test_negative_number_is_a_value_not_a_flag():
    assert problems("SOLVER.BASE_LR", "-1") == [
        "SOLVER.BASE_LR must be a number above 0 and at most 1e+30, got -1.0. Try 0.0008."
    ]
