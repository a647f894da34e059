from importlib.util import find_spec

import pytest


def test_a_model_that_is_not_there_is_named_with_the_nearest(run_tool):
    for what, wrong, right in (
        ("model", "hiera_bas_16x224", "hiera_base_16x224"),
        ("mae", "mae_hiera_bas_16x224", "mae_hiera_base_16x224"),
    ):
        outcome = run_tool("benchmark", f"{what} --model {wrong}")
        assert outcome.status == 1
        assert outcome.err.startswith("error: --model must be one of")
        assert f"Did you mean {right}?" in outcome.err


def test_a_share_outside_its_range_is_refused(run_tool):
    outcome = run_tool("benchmark", "mae --ratio 1.5")
    assert outcome.status == 2
    assert "--ratio" in outcome.err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("hiera") is None, reason="the peers extra is not installed")
def test_the_published_step_and_ours_have_the_same_loss(run_tool):
    outcome = run_tool("benchmark", "mae --model mae_hiera_tiny_224 --ratio 0.6 --repeats 1")
    assert outcome.status == 0, outcome.err
    rows = {line.split("  ")[1]: line for line in outcome.out.splitlines() if "loss" in line}
    losses = {name: float(row.split("loss ")[1].split()[0]) for name, row in rows.items()}
    assert losses["ours"] == pytest.approx(losses["published"], abs=1e-5)
    assert "ratio published / this" in rows["ours, decoding part"]


def test_loading_the_users_own_list_is_measured(run_tool, small_run):
    outcome = run_tool(
        "benchmark",
        "loader --list val --videos 2 --repeats 1 --workers 1 "
        f"{small_run} DATA.DECODING_BACKEND pyav",
    )
    assert outcome.status == 0, outcome.err
    assert "2 of 2 videos read" in outcome.out
    for what in ("over plain decoding", "as PySlowFast does", "a training view, expected"):
        assert what in outcome.out
