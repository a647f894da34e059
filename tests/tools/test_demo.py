import simplejson

SMALL_DEMO = (
    "SOLVER.MAX_EPOCH 1 TRAIN.BATCH_SIZE 8 DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 "
    "DATA.TEST_CROP_SIZE 32 DATA_LOADER.NUM_WORKERS 0 TENSORBOARD.ENABLE False"
)


def test_demo_runs_the_commands_once_and_prints_its_table(run_tool, small_set, tmp_path):
    # The data are there already (the tool that makes them would refuse another size), so its step
    # is marked as done, as after a demo that was stopped.
    out = tmp_path / "output"
    words = f"{SMALL_DEMO} DATA.PATH_TO_DATA_DIR {small_set} OUTPUT_DIR {out}"
    refused = run_tool("demo", f"{words} SOLVER.MAX_EPOCH 2 SOLVER.WARMUP_EPOCHS 9")
    assert refused.status == 1
    mark_data_as_made(out, words)
    first = run_tool("demo", words)
    assert first.status == 0, first.err
    assert "make data: done before" in first.out
    assert "$ python tools/run_net.py --cfg configs/Demo/HIERA_MICRO.yaml" in first.out
    assert "| top-1, multi-view (5x1)" in first.out
    second = run_tool("demo", words)
    assert "$ python" not in second.out
    assert second.out.split("| videos")[1:] == first.out.split("| videos")[1:]


def mark_data_as_made(out, words):
    from hiera_video.config import load_config, to_yaml

    out.mkdir()
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", words.split())
    record = {"config": to_yaml(cfg), "seconds": {"make data": 1.0}}
    (out / "demo.json").write_text(simplejson.dumps(record))


def test_demo_of_other_settings_is_not_mixed_with_an_earlier_one(run_tool, small_set, tmp_path):
    out = tmp_path / "output"
    words = f"{SMALL_DEMO} DATA.PATH_TO_DATA_DIR {small_set} OUTPUT_DIR {out}"
    mark_data_as_made(out, words)
    outcome = run_tool("demo", f"{words} SOLVER.MAX_EPOCH 2")
    assert outcome.status == 1
    assert "holds a demo of other settings" in outcome.err
