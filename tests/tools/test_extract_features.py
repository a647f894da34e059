import csv
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from hiera_video.config import load_config, to_yaml
from hiera_video.data import sampling
from hiera_video.data.dataset import TestViews
from hiera_video.data.decoders import open_video
from hiera_video.data.transforms.pipeline import TestTransform
from hiera_video.inference.load import load_trained
from hiera_video.models.build import build_model
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.hiera_mae import mae_hiera_micro_8x64

CLIPS = "DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 TEST.NUM_TEMPORAL_CLIPS 2"
SSL = (
    "TASK ssl MODEL.ARCH hiera_mae MODEL.MODEL_NAME mae_hiera_micro_8x64 TEST.ENABLE False "
    "TEST.VIEWS_TABLE False MASK.DECODER_EMBED_DIM 128 MASK.DECODER_DEPTH 2 "
    "MASK.DECODER_NUM_HEADS 4 MASK.RATIO 0.5"
)


def save(folder, *overrides, seed=0):
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", " ".join([CLIPS, *overrides]).split())
    torch.manual_seed(seed)
    if cfg.TASK == "ssl":
        model = mae_hiera_micro_8x64(input_size=(4, 32, 32))
    else:
        model = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8)
    path = folder / f"checkpoint_{cfg.TASK}_{seed}.pyth"
    torch.save({"model_state": model.state_dict(), "cfg": to_yaml(cfg)}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(tmp_path_factory.mktemp("run"))


@pytest.fixture
def folder(small_set, tmp_path):
    """Three videos in a folder and one below it."""
    found = sorted(small_set.glob("val/*/00000.mp4"))[:3]
    (tmp_path / "videos" / "below").mkdir(parents=True)
    for number, video in enumerate(found):
        shutil.copy(video, tmp_path / "videos" / ("below" if number == 2 else "") / f"{number}.mp4")
    return tmp_path / "videos"


@pytest.fixture
def extract(run_tool, checkpoint, tmp_path):
    def run(*words, checkpoint=checkpoint):
        line = [
            "--workers 0",
            *words,
            "--checkpoint",
            checkpoint,
            "--output",
            tmp_path / "features",
        ]
        return run_tool("extract_features", " ".join(map(str, line)))

    return run


@pytest.fixture
def output(tmp_path):
    return tmp_path / "features"


def read(path):
    with np.load(path) as content:
        return content["features"], str(content["path"])


def clips_of(path, trained):
    """The clips of a video, each the centre crop, made by hand."""
    data = trained.cfg.DATA
    views = TestViews(
        sample_frames=partial(
            sampling.testing_indices,
            sampling.ClipSpec(4, data.SAMPLING_RATE, data.TARGET_FPS),
            num_clips=2,
        ),
        transform=TestTransform(crop_size=32, num_crops=1, mean=data.MEAN, std=data.STD),
    )
    with open_video(str(path)) as reader:
        pixels, _ = views(reader, None, lambda shape, dtype: torch.empty(shape, dtype=dtype))
    return views.finish(pixels)


def test_pooled_features_are_what_the_classifier_takes(extract, folder, output, checkpoint):
    outcome = extract(folder)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == f"features of 3 of 3 videos are in {output}, listed in index.csv\n"
    features, path = read(output / "below" / "2.mp4.npz")
    assert path == str(folder / "below" / "2.mp4")
    trained = load_trained(checkpoint)
    model = trained.model
    with torch.inference_mode():
        logits_BK = model(clips_of(path, trained))
        head = model.head.projection
        mean_D = torch.from_numpy(features)
        assert torch.allclose(head(mean_D), logits_BK.mean(0), atol=1e-5)
    rows = list(csv.DictReader((output / "index.csv").open()))
    assert [(output / row["file"]).exists() for row in rows] == [True] * 3
    assert (output / "bad.csv").read_text() == "path,reason\n"


def test_maps_per_clip_lie_in_spatial_order(extract, folder, output, checkpoint):
    assert extract(folder, "--features map --per clip --format safetensors").status == 0
    file = output / "0.mp4.safetensors"
    with safe_open(file, "numpy") as content:
        features, metadata = content.get_tensor("features"), content.metadata()
    assert metadata == {"path": str(folder / "0.mp4")}
    trained = load_trained(checkpoint)
    with torch.inference_mode():
        maps_BTHWD = trained.model.forward_features(clips_of(folder / "0.mp4", trained))[-1]
    assert features.shape == (2, 1, *maps_BTHWD.shape[1:])
    assert np.allclose(features[:, 0], maps_BTHWD.numpy(), atol=1e-5)


def test_maps_per_video_are_the_clips_in_time(extract, folder, output, tmp_path):
    assert extract(folder, "--features map --stage 1 --dtype float16").status == 0
    features, _ = read(output / "0.mp4.npz")
    assert features.dtype == np.float16
    shutil.rmtree(output)
    assert extract(folder, "--features map --stage 1 --per clip").status == 0
    of_clips, _ = read(output / "0.mp4.npz")
    assert np.allclose(features, of_clips.reshape(features.shape), atol=1e-2)
    outcome = extract(folder, "--features map --crops 3")
    assert outcome.status == 1
    assert "--crops must be 1 for feature maps per video, got 3" in outcome.err


def test_what_is_done_is_not_done_again(extract, folder, output):
    assert extract(folder).status == 0
    names = ["0.mp4.npz", "1.mp4.npz", "below/2.mp4.npz"]
    before = {name: (output / name).stat().st_mtime_ns for name in names}
    (output / "1.mp4.npz").unlink()
    future = (output / "0.mp4.npz").stat().st_mtime_ns + 1
    os.utime(folder / "0.mp4", ns=(future, future))  # the video has changed since
    outcome = extract(folder)
    assert (outcome.status, outcome.err) == (0, "1 of 3 videos are done already\n")
    changed = [name for name in names if (output / name).stat().st_mtime_ns != before[name]]
    assert changed == names[:2]
    assert len(list(csv.DictReader((output / "index.csv").open()))) == 3


def test_what_a_killed_run_left_half_written_goes(extract, folder, output):
    assert extract(folder).status == 0
    left = output / "below" / ".2.mp4.npz.abc_12.tmp"
    left.write_bytes(b"half")
    mine = output / ".mine.tmp"
    mine.write_text("not a feature file")
    assert extract(folder).status == 0
    assert (left.exists(), mine.exists()) == (False, True)


def test_features_of_another_precision_are_not_mixed_in(extract, folder, output, tmp_path):
    mixed = save(tmp_path, "TRAIN.MIXED_PRECISION True")
    assert extract(folder, checkpoint=mixed).status == 0
    path = output / "features.json"
    settings = json.loads(path.read_text())
    assert settings.pop("precision") == "bfloat16"
    found = extract(folder)
    assert found.status == 1
    assert "whose precision is 'bfloat16' and not 'float32'." in found.err
    path.write_text(json.dumps(settings))  # as earlier releases wrote it
    assert extract(folder, checkpoint=mixed).status == 0


def test_other_features_are_not_mixed_in(extract, folder, output, tmp_path):
    assert extract(folder).status == 0
    settings = json.loads((output / "features.json").read_text())
    assert (settings["per"], settings["clips"], settings["stage"]) == ("video", 2, 4)
    assert settings["precision"] == "float32"
    other = save(tmp_path, seed=1)
    for words, name in ((["--per clip"], "per"), (["--clips 1"], "clips"), ([], "weights")):
        found = extract(folder, *words, **({} if words else {"checkpoint": other}))
        assert found.status == 1
        assert f"whose {name} is " in found.err
        assert "Try another --output." in found.err
    assert extract(folder).status == 0


def test_videos_of_the_same_names_elsewhere_are_not_taken_for_done(
    extract, folder, output, tmp_path
):
    assert extract(folder).status == 0
    shutil.copytree(folder, tmp_path / "others")
    before = (output / "index.csv").read_bytes()
    found = extract(tmp_path / "others")
    assert found.status == 1
    assert f"whose root is '{folder}' and not '{tmp_path}/others'. Try another" in found.err
    assert (output / "index.csv").read_bytes() == before


def test_a_disk_that_is_full_at_the_start_is_one_line(checkpoint, folder, output):
    # From the first file of the folder on; earlier, temporary files need room too.
    code = "import resource, runpy, sys; from hiera_video.inference import features; "
    code += "settle = features.settle; none = (0, resource.RLIM_INFINITY); "
    code += "features.settle = lambda *a, **k: (resource.setrlimit(resource.RLIMIT_FSIZE, none), "
    code += "settle(*a, **k)); sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    words = f"tools/extract_features.py {folder} --checkpoint {checkpoint} --output {output}"
    done = subprocess.run([sys.executable, "-c", code, *words.split()], capture_output=True)
    assert done.returncode == 1
    assert b"features.json' could not be written (File too large)" in done.stderr
    assert b"Traceback" not in done.stderr


def test_bad_files_are_listed_and_the_others_done(extract, folder, output, bad_videos):
    (folder / "bad.mp4").write_bytes(Path(bad_videos["noise.mp4"]).read_bytes())
    outcome = extract(folder)
    assert outcome.status == 1
    assert outcome.err.startswith(f"error: {folder / 'bad.mp4'}: ")
    assert f"1 videos could not be read: see {output}/bad.csv" in outcome.err
    (row,) = csv.DictReader((output / "bad.csv").open())
    assert row["path"] == str(folder / "bad.mp4")
    assert row["reason"]
    assert len(list(csv.DictReader((output / "index.csv").open()))) == 3
    (folder / "bad.mp4").unlink()
    assert extract(folder).status == 0
    assert (output / "bad.csv").read_text() == "path,reason\n"


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_a_name_that_is_no_text_has_features_and_stands_in_the_list(
    extract, folder, output, small_set, form
):
    name = os.fsdecode(b"b\xff.mp4")
    (folder / name).write_bytes(next(small_set.glob("val/*/00000.mp4")).read_bytes())
    outcome = extract(folder, "--format", form)
    assert outcome.status == 0, outcome.err
    assert (output / f"{name}.{form}").is_file()
    assert b"/b\xff.mp4," in (output / "index.csv").read_bytes()


def test_a_damaged_account_of_the_features_is_told(extract, folder, output):
    output.mkdir()
    (output / "features.json").write_text("[1]")
    outcome = extract(folder)
    assert outcome.status == 1
    assert "whose features.json is damaged. Try another --output." in outcome.err


def test_a_list_needs_no_labels(extract, folder, output, tmp_path, small_set):
    data = tmp_path / "data"
    data.mkdir()
    elsewhere = sorted(small_set.glob("val/*/00001.mp4"))[:1] or sorted(small_set.glob("val/*/*"))
    shutil.copy(folder / "0.mp4", data / "inside.mp4")
    (data / "val.csv").write_text(f"inside.mp4\n{elsewhere[0]}\ninside.mp4\n")
    assert extract(f"--data-dir {data} --split val").status == 0
    rows = list(csv.DictReader((output / "index.csv").open()))
    assert [row["path"] for row in rows] == [str(data / "inside.mp4"), str(elsewhere[0])]
    assert rows[0]["file"] == "inside.mp4.npz"
    assert rows[1]["file"].startswith("elsewhere/")
    assert (output / rows[1]["file"]).is_file()


def test_a_config_names_list_and_model(extract, output, small_set, tmp_path):
    words = f"{CLIPS} DATA.PATH_TO_DATA_DIR {small_set}".split()
    (tmp_path / "mine.yaml").write_text(
        to_yaml(load_config("configs/Demo/HIERA_MICRO.yaml", words))
    )
    bare = tmp_path / "bare.pyth"
    torch.save(hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8).state_dict(), bare)
    outcome = extract(f"--cfg {tmp_path / 'mine.yaml'} --split val", checkpoint=bare)
    assert (outcome.status, outcome.err) == (0, "")
    assert len(list(output.glob("val/*/*.npz"))) == 8


def test_an_autoencoder_gives_features_too(extract, folder, output, tmp_path):
    path = save(tmp_path, SSL)
    outcome = extract(folder, "--per clip --features map --crops 1", checkpoint=path)
    assert (outcome.status, outcome.err) == (0, "")
    features, _ = read(output / "0.mp4.npz")
    assert features.shape[:5] == (2, 1, 2, 2, 2)  # one pooling less than a classifier
    outcome = extract(folder, "--model mae_hiera_micro_8x64", checkpoint=path)
    assert outcome.status == 1  # of another size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{folder} --stage 5", "--stage must be between 1 and 4, got 5. Try 4."),
        ("nowhere", "FOLDER must be a folder of videos, got 'nowhere'."),
        ("{folder}/empty", "FOLDER must be a folder of videos"),
        ("--data-dir {folder}", "train.csv"),
        ("{folder} --device cuda:77", "device must be one of this machine"),
        ("{folder} --workers -1", "num_workers must be at least 0"),
    ],
)
def test_a_wrong_option_is_one_line(extract, folder, output, words, message):
    (folder / "empty").mkdir()
    outcome = extract(words.format(folder=folder))
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert not output.exists()


def test_an_output_that_is_a_file_is_refused(extract, folder, output):
    output.write_text("mine")
    outcome = extract(folder)
    assert outcome.status == 1
    assert "--output must be a folder that can be written" in outcome.err
    assert output.read_text() == "mine"


@pytest.mark.slow  # to import it takes seconds
def test_a_baseline_has_no_features(run_tool, folder, tmp_path, output):
    words = f"{CLIPS} MODEL.ARCH baselines MODEL.MODEL_NAME x3d_s".split()
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", words)
    path = tmp_path / "x3d.pyth"
    torch.save({"model_state": build_model(cfg).state_dict(), "cfg": to_yaml(cfg)}, path)
    outcome = run_tool("extract_features", f"{folder} --checkpoint {path} --output {output}")
    assert outcome.status == 1
    assert "checkpoint must be one of a Hiera, got x3d_s" in outcome.err
