import shutil
from pathlib import Path

import pytest
import simplejson

MICRO = "--cfg configs/Demo/HIERA_MICRO.yaml"
MICRO_MAE = (
    f"{MICRO} TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 "
    "TEST.ENABLE False TEST.VIEWS_TABLE False MASK.DECODER_EMBED_DIM 128 MASK.DECODER_DEPTH 2 "
    "MASK.DECODER_NUM_HEADS 4"
)


def models(outcome):
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    return simplejson.loads(outcome.out)["models"]


def test_one_config_gives_its_row_stages_operators_and_what_is_not_counted(run_tool):
    outcome = run_tool("flops_report", MICRO)
    assert (outcome.status, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].split("  ")[0] == "model"
    # 5 clips x 1 crop, 8 classes.
    assert lines[2].split() == [
        *("hiera_micro_8x64", "configs/Demo/HIERA_MICRO.yaml", "8x64x64"),
        *("0.10", "5x1", "0.51", "1.19", "1.10"),
    ]
    for start in ("patch embedding ", "stage 4 ", "head ", "linear ", "attention ", "conv "):
        assert any(line.startswith(start) for line in lines), start
    assert (
        "Not counted by convention, elementwise, with calls: add 12, amax 6, gelu 5," in outcome.out
    )
    assert "Not counted by convention, data movement, with calls: unflatten" in outcome.out
    assert "UNKNOWN" not in outcome.out


def test_several_models_give_one_table_and_details_on_request(run_tool):
    words = f"{MICRO} --model hiera_micro_8x64 --model mae_hiera_micro_8x64"
    outcome = run_tool("flops_report", words)
    rows = [line.split() for line in outcome.out.splitlines()[2:5]]
    assert [row[0] for row in rows] == [*["hiera_micro_8x64"] * 2, "mae_hiera_micro_8x64"]
    assert "stage 1" not in outcome.out
    assert "gelu 5..7" in outcome.out  # the autoencoder's decoder has two blocks more
    outcome = run_tool("flops_report", f"{words} --details")
    assert outcome.out.count("stage 1") == 3
    assert outcome.out.count("decoder ") == 1


def test_markdown_is_a_table_to_paste(run_tool):
    outcome = run_tool("flops_report", "--model hiera_micro_8x64 --format markdown")
    titles, rule, row = outcome.out.splitlines()[:3]
    assert {line.count("|") for line in (titles, rule, row)} == {8}
    assert rule.startswith("|---")
    assert "--:|" in rule
    assert "stage 1" not in outcome.out
    detailed = run_tool("flops_report", "--model hiera_micro_8x64 --format markdown --details").out
    assert "| stage 1 " in detailed


def test_json_holds_plain_numbers(run_tool):
    (config,) = models(run_tool("flops_report", f"{MICRO} --format json"))
    assert config["source"] == "configs/Demo/HIERA_MICRO.yaml"
    assert config["views"] == [5, 1]
    assert config["multiply_adds_per_video"] == 5 * config["multiply_adds_per_view"]
    assert config["multiply_adds_per_view"] == sum(s["multiply_adds"] for s in config["stages"])
    assert config["parameters"] == sum(s["parameters"] for s in config["stages"])
    assert config["elementwise"]["gelu"] == 5
    assert (config["complete"], config["unknown"], config["masks"]) == (True, {}, None)
    (function,) = models(run_tool("flops_report", "--model hiera_micro_8x64 --format json"))
    assert (function["views"], function["multiply_adds_per_video"]) == (None, None)
    assert list(function) == list(config)


def test_overrides_reach_every_config(run_tool):
    wide, narrow = models(
        run_tool(
            "flops_report",
            f"{MICRO} {MICRO} --format json MODEL.NUM_CLASSES 5 TEST.NUM_TEMPORAL_CLIPS 2",
        )
    )
    assert wide == narrow
    assert wide["views"] == [2, 1]
    assert wide["parameters"] == 1288752 - 395 * 257  # 400 classes less 395, of 256 channels


def test_an_autoencoder_is_counted_at_its_masks(run_tool):
    extra = "AUG.ENABLE True AUG.NUM_SAMPLE 4 MASK.RATIO 0.75"
    words = MICRO_MAE.replace(" TASK", " --format json TASK")
    (whole,) = models(run_tool("flops_report", f"{words} {extra}"))
    (half,) = models(run_tool("flops_report", f"{words} {extra} MASK.DECODER_KEEP_RATIO 0.5"))
    assert whole["views"] == [4, 1]  # the samples of a video that a pass of pretraining takes
    # 4 x 2 x 2 mask units; tubes: 1 of 4 places; 4 decoder tokens a unit.
    assert whole["masks"] == {
        "visible_units": 4,
        "all_units": 16,
        "decoded_tokens": 48,
        "hidden_tokens": 48,
    }
    assert half["masks"]["decoded_tokens"] == 24
    assert [s["name"] for s in whole["stages"]][-2:] == ["fusion", "decoder"]
    different = [s["name"] for s, h in zip(whole["stages"], half["stages"], strict=True) if s != h]
    assert different == ["decoder"]
    assert half["multiply_adds_per_view"] < whole["multiply_adds_per_view"]


def test_the_mask_ratio_of_a_function_is_the_papers_or_the_one_given(run_tool):
    video, image = models(
        run_tool(
            "flops_report", "--model mae_hiera_micro_8x64 --model mae_hiera_tiny_224 --format json"
        )
    )
    assert video["masks"]["visible_units"] == 1  # floor(16 * 0.1)
    assert image["masks"]["visible_units"] == 19  # floor(49 * 0.4)
    (half,) = models(
        run_tool("flops_report", "--model mae_hiera_micro_8x64 --mask-ratio 0.5 --format json")
    )
    assert half["masks"]["visible_units"] == 8


def test_the_baseline_is_counted_at_the_size_it_is_tested_at(run_tool):
    words = (
        "--cfg configs/Kinetics/HIERA_B.yaml --format json MODEL.ARCH baselines "
        "MODEL.MODEL_NAME x3d_s MODEL.DROP_PATH_RATE 0 DATA.NUM_FRAMES 13 "
        "DATA.TRAIN_CROP_SIZE 160 DATA.TEST_CROP_SIZE 192"
    )
    (report,) = models(run_tool("flops_report", words))
    assert report["clip_shape"] == [3, 13, 192, 192]
    assert report["multiply_adds_per_view"] / 1e9 == pytest.approx(
        1.96 * (192 / 160) ** 2, rel=0.02
    )
    assert report["complete"]


def test_what_makes_a_total_doubtful_is_said(run_tool, monkeypatch):
    """An operator without a rule is unknown; here attention, as it was before it had one."""
    from hiera_video.flops import count

    without = {k: v for k, v in count.PRODUCTS.items() if "attention" not in k}
    monkeypatch.setattr(count, "PRODUCTS", without)
    outcome = run_tool("flops_report", "--model hiera_micro_8x64")
    assert (
        "UNKNOWN operators in hiera_micro_8x64, the total may be too low: "
        "scaled_dot_product_attention 5" in outcome.out
    )
    assert "UNKNOWN: in hiera_micro_8x64 the trace holds 0.09 G multiply-adds" in outcome.out
    (report,) = models(run_tool("flops_report", "--model hiera_micro_8x64 --format json"))
    assert report["complete"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--cfg or --model must be given"),
        ("--model hiera_mirco_8x64", "Did you mean hiera_micro_8x64?"),
        (
            "--model load_model",
            "--model must be a model function of hiera_video (hiera_base_16x224",
        ),
        ("--model hiera_micro_8x64 TEST.BATCH_SIZE 1", "KEY VALUE pairs must go with --cfg"),
        ("--model hiera_micro_8x64 --mask-ratio 0.5", "Try mae_hiera_micro_8x64."),
        ("--model mae_hiera_micro_8x64 --mask-ratio 1", "mask ratio must be"),
        (f"{MICRO_MAE.replace(' TASK', ' --mask-ratio 0.5 TASK')}", "Try MASK.RATIO"),
        ("--cfg configs/Demo/HIERA_MIRCO.yaml", "Did you mean"),
        (f"{MICRO} DATA.TRAIN_CROP_SIZE 50 DATA.TEST_CROP_SIZE 50", "DATA.TRAIN_CROP_SIZE"),
        (f"{MICRO} MODEL.MODEL_NAME hiera_mirco", "MODEL.MODEL_NAME must be a function"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(run_tool, words, message):
    outcome = run_tool("flops_report", words)
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert message in outcome.err


def test_an_unknown_format_is_refused_by_the_command_line(run_tool):
    assert run_tool("flops_report", f"--format csv {MICRO}").status == 2


def test_a_config_may_lie_anywhere(run_tool, tmp_path):
    shutil.copy("configs/Demo/HIERA_MICRO.yaml", tmp_path / "mine.yaml")
    assert str(tmp_path) in run_tool("flops_report", f"--cfg {tmp_path / 'mine.yaml'}").out


@pytest.mark.slow
def test_every_shipped_config_is_counted_without_an_unknown(run_tool):
    paths = [p for p in sorted(Path("configs").rglob("*.yaml")) if not p.name.startswith("_")]
    words = " ".join(f"--cfg {path}" for path in paths)
    reports = models(run_tool("flops_report", f"{words} --format json"))
    assert [report["source"] for report in reports] == list(map(str, paths))
    assert all(report["complete"] and not report["uncalled_modules"] for report in reports)


def documented():
    """Return the rows of docs/flops.md that begin with a model's name, as cells."""
    lines = Path("docs/flops.md").read_text().splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in rows if row and row[0].startswith(("hiera_", "mae_"))}


@pytest.mark.slow
def test_the_documented_tables_are_what_the_tool_says(run_tool):
    rows = documented()
    assert len(rows) == 20
    words = " ".join(f"--model {name}" for name in rows)
    for report in models(run_tool("flops_report", f"{words} --format json")):
        row = rows[report["name"]]
        gflops, parameters = row[3 if report["masks"] else 1], row[-1 if report["masks"] else 4]
        assert gflops == f"{report['multiply_adds_per_view'] / 1e9:.2f}"
        assert parameters == f"{report['parameters'] / 1e6:.2f} M"
        if masks := report["masks"]:
            assert row[1] == f"{masks['visible_units']} of {masks['all_units']}"
            assert row[2] == str(masks["decoded_tokens"])


def test_masks_that_hide_nothing_are_refused_by_the_keys_name(run_tool):
    outcome = run_tool("flops_report", f"{MICRO_MAE} MASK.STRATEGY frame MASK.RATIO 0.05")
    assert outcome.status == 1
    assert outcome.err.startswith("error: MASK.RATIO must hide at least one part of frame masks")
